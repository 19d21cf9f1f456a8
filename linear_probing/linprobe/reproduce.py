"""The paper's table of seven tasks: what it needs, by which commands it is made, and the table.

The paper (Fecso et al., MICCAI 2025) gives mean gains over seven OCT tasks. Of the nine data sets
that its scripts name two are in-house; the seven others are those below.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from retfiner.common.cli import flag
from retfiner.common.commands import REPOSITORY, command, shorter
from retfiner.common.errors import InputError
from retfiner.common.files import file_sha256, write_text
from retfiner.vision.published.find import DOWNLOADS, GET, downloaded, entry_named
from retfiner.vision.published.registry import WEIGHTS

PAPER = {"RETFound": 5.8, "UrFound": 3.9, "VisionFM": 2.1}
"""Mean gain over the base model in points of balanced accuracy; of a single task none is known."""
TASKS = (
    "Duke_iAMD", "GAMMAv2", "Harvard_Glaucoma", "NEHUT2D", "Noor_Eye_Hospital", "OCTDL", "OCTID"
)  # fmt: skip
MEAN = "Mean"

Names = list[str]
_HOME = REPOSITORY / "linear_probing"
_SHARED = ("data_root", "downloads", "output")


@dataclass(frozen=True)
class ReproduceConfig:
    """Settings of ``reproduce.sh``."""

    model: Names = flag("base models, of RETFound, UrFound and VisionFM", [*PAPER])
    data_set: Names = flag("data sets, of the seven", [*TASKS])
    own: Names = flag(
        "refinements of your own; by default what extraction wrote to _weights", [],
        metavar="MODEL=PATH",
    )  # fmt: skip
    downloads: Path = flag(
        "folder of the data sets' downloads: <name>/, <name>.zip, <name>_labels.csv, ...",
        _HOME / "_downloads",
    )
    data_root: Path = flag("folder of the prepared data sets", _HOME / "_data")
    output: Path = flag("folder of features, results and table", _HOME / "__reproduce")
    probe: Names = flag(
        "flags of probe.py, without their dashes: seed=0,1 views=2", [], metavar="FLAG=VALUE"
    )
    table: bool = flag("write the table of what is finished, and end", False)

    def __post_init__(self) -> None:
        """Check what a type alone cannot say.

        Raises:
            InputError: If a name is none of ours.
        """
        for name, given, known in (
            ("model", self.model, [*PAPER]),
            ("data_set", self.data_set, [*TASKS]),
            ("own", [word.partition("=")[0] for word in self.own], self.model),
        ):
            stray = [word for word in given if word not in known]
            if stray:
                raise InputError(
                    f"--{name} names others", got=", ".join(stray), expected=", ".join(known)
                )
        if not all("=" in word for word in self.own):
            raise InputError("--own takes MODEL=PATH", got=" ".join(self.own))


def plan(config: ReproduceConfig) -> list[str]:
    """Write down the commands that lead to the table, those left out that are done already.

    Raises:
        InputError: If weights or data sets are missing: all of it, with what to do about each.
    """
    missing: list[str] = []
    models = {name: _files(config, name, missing) for name in config.model}
    lines = _preparations(config, missing)
    if missing:
        raise InputError(
            "This is missing for the table:\n  - " + "\n  - ".join(missing),
            remedy="--model and --data_set make a smaller table",
        )
    results = config.output / "results"
    where = ("--results", shorter(results))
    for files in models.values():
        weights = [f"{name}={shorter(path)}" for name, path in files.items()]
        lines.append(
            command(
                "linear_probing/probe.py", "--weights", *weights, "--protocol", "published",
                "--data_root", shorter(config.data_root), "--data_set", *config.data_set,
                *where, "--feature_store", shorter(config.output / "features"), *_flags(config),
            )
        )  # fmt: skip
    pairs = [
        (base, _in_results(name, path, results))
        for base, files in models.items()
        for name, path in files.items()
        if name != base
    ]
    bases, others = ([pair[k] for pair in pairs] for k in (0, 1))
    report = ("--base", *bases, "--refined", *others, "--data_set", *config.data_set)
    lines.append(
        command("linear_probing/report.py", *where, *report, "--output",
                shorter(config.output / "report"))
    )  # fmt: skip
    words = [word for name in _SHARED for word in (f"--{name}", shorter(getattr(config, name)))]
    models_word = ("--model", *config.model, "--data_set", *config.data_set)
    lines.append(command("linear_probing/reproduce.py", "--table", *words, *models_word))
    return lines


def table(config: ReproduceConfig) -> str:
    """Lay out base, released and own refinement of each model, with the paper's gain beside.

    Raises:
        InputError: If there is no report to read, or it lacks a model or data set.
    """
    path = config.output / "report" / "changes.csv"
    if not path.is_file():
        raise InputError(f"There is no {path}", remedy="run reproduce.sh without --table first")
    changes = pd.read_csv(path)  # of classes alone: each kind of task has a mean of its own
    keys = ["base", "refined", "data_set"]
    rows = changes[changes["task"] == "classes"].set_index(keys).to_dict("index")
    lines = [
        "| Model | Data set | Base | Released | Change | Own | Change | Paper, mean of seven |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for base in config.model:
        for data_set in (*config.data_set, MEAN):
            released = rows.get((base, _released(base), data_set))
            if released is None:
                raise InputError(
                    f"{path} has no {base} and {_released(base)} on {data_set}",
                    remedy="run reproduce.sh without --table and with the same names",
                )
            own = rows.get((base, f"own-{base}", data_set))
            pairs = [
                word for row in (released, own)
                for word in (_score(row, "refined_mean"), _score(row, "change", "+"))
            ]  # fmt: skip
            cells = [base, data_set, _score(released, "base_mean"), *pairs]
            cells.append(f"{PAPER[base]:+.1f}" if data_set == MEAN else "")
            lines.append(f"| {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    write_text(config.output / "table.md", text)
    return text


def _files(config: ReproduceConfig, base: str, missing: list[str]) -> dict[str, Path]:
    """Find a base model and its refinements, by their names in the results; or say how to."""
    folders = (DOWNLOADS, _HOME / "_weights")
    files = {}
    for name in (base, _released(base)):
        entry = entry_named(name)
        path = downloaded(entry, folders)
        if path is None:
            missing.append(f"{entry.files[0]} of {name}: {command(GET, name)}")
        else:
            files[name] = path
    given = dict(word.split("=", 1) for word in config.own)
    pattern = f"best-model_{base}_*_bscan.pth"
    found = [Path(given[base])] if base in given else sorted((_HOME / "_weights").glob(pattern))
    if len(found) > 1:
        told = ", ".join(map(shorter, found))
        missing.append(f"the word which is your own refinement: --own {base}=PATH, of {told}")
    elif not found:
        print(f"note: no refinement of {base} of your own; its columns stay empty", file=sys.stderr)
    elif not found[0].is_file():
        missing.append(f"{found[0]}: --own {base}=PATH names no file")
    else:
        files[f"own-{base}"] = found[0]
    return files


def _preparations(config: ReproduceConfig, missing: list[str]) -> list[str]:
    """Write down how each data set that is not prepared yet is, or say where it is got."""
    from linprobe.prepare.registry import find_spec

    lines = []
    for name in config.data_set:
        if (config.data_root / name / "train").is_dir():
            continue
        spec = find_spec(name)
        there = sorted(config.downloads.iterdir()) if config.downloads.is_dir() else []
        sources = [shorter(p) for p in there if p.name.lower().startswith(name.lower())]
        if sources:
            words = (name, "--source", *sources, "--output", shorter(config.data_root))
            lines.append(command("linear_probing/prepare_dataset.py", *words))
        else:
            place = shorter(config.downloads / name)
            missing.append(f"{name}: download it from {spec.where} into {place}/")
    return lines


def _released(base: str) -> str:
    return next(entry.name for entry in WEIGHTS if entry.refines == base)


def _in_results(name: str, path: Path, results: Path) -> str:
    """Name a model as the report finds it; earlier refinements of one's own may lie beside it."""
    if name.startswith("own-") and any(results.glob(f"{name}-*")):
        return f"{name}-{file_sha256(path)[:8]}"
    return name


def _flags(config: ReproduceConfig) -> list[str]:
    words = []
    for item in config.probe:
        name, _, value = item.partition("=")
        words += [f"--{name}", *(value.split(",") if value else [])]
    return words


def _score(row: dict[Any, Any] | None, column: str, sign: str = "") -> str:
    return "" if row is None else f"{row[column]:{sign}.2f}"
