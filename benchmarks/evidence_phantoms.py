"""Does a recipe help on phantoms, with few pairs and with many?

Takes what ``quickstart.sh`` leaves: pairs, a base model, a text encoder and four labelled tasks of
patients of their own. From the pairs of some patients, drawn anew each time, ``train.py`` refines
as users run it; three probes are trained on each task, of the base and of the refined encoder.

    python benchmarks/evidence_phantoms.py --quickstart quickstart --output evidence_phantoms

What ``output`` holds already is not computed again; a table is printed at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from evidence import PROBES, balanced, features_of, require_variants, train
from evidence import VARIANTS as OF_TWELVE_BLOCKS

from retfiner.common.cli import flag, parse
from retfiner.common.errors import run_entry_point
from retfiner.common.numbers import PositiveInt

VARIANTS = OF_TWELVE_BLOCKS | {
    "auto, all blocks": ["--unfreeze_last", "4"],
    "auto, last third of the blocks": ["--unfreeze_last", "2"],
}


@dataclass(frozen=True)
class Settings:
    """The command line."""

    quickstart: Path = flag("folder that quickstart.sh wrote")
    output: Path = flag("folder for pairs, runs and evidence.csv")
    variants: list[str] = flag("which to run, by name", ["auto", "published"])
    sizes: list[int] = flag("pairs to refine on", [80, 400, 2000])
    draws: PositiveInt = flag("how often patients are drawn for each size", 2)


Task = dict[str, list[tuple[Path, int]]]
"""Images with their class numbers, by split."""


def read_tasks(folder: Path) -> dict[str, Task]:
    """Read the labelled tasks: a folder for each split and class."""
    tasks: dict[str, Task] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        classes = sorted(p.name for p in (path / "train").iterdir())
        tasks[path.name] = {
            split: [
                (image, label)
                for label, name in enumerate(classes)
                for image in sorted((path / split / name).iterdir())
            ]
            for split in ("train", "val", "test")
        }
    return tasks


def draw_pairs(table: pd.DataFrame, size: int, generator: np.random.Generator) -> pd.DataFrame:
    """Draw patients until there are so many pairs."""
    patients = generator.permutation(table["patient_id"].unique())
    of_patient = table.groupby("patient_id").size()[patients].cumsum()
    chosen = patients[: int(np.searchsorted(of_patient, size)) + 1]
    return table[table["patient_id"].isin(chosen)]


def score(weights: Path, tasks: dict[str, Task]) -> dict[tuple[str, str], np.ndarray]:
    """Return hits on the test images, by task and probe."""
    paths = [path for task in tasks.values() for split in task.values() for path, _ in split]
    features = dict(zip(paths, features_of(weights, paths), strict=True))
    hits = {}
    for name, task in tasks.items():
        known, unseen = [*task["train"], *task["val"]], task["test"]
        source, target = (np.stack([features[p] for p, _ in part]) for part in (known, unseen))
        labels, truth = (np.array([label for _, label in part]) for part in (known, unseen))
        for probe, predict in PROBES.items():
            hits[name, probe] = (predict(source, labels, target) == truth).astype(float)
    return hits


def changes(
    base: dict[tuple[str, str], np.ndarray],
    refined: dict[tuple[str, str], np.ndarray],
    tasks: dict[str, Task],
) -> pd.DataFrame:
    """Compare both encoders; the interval of the mean draws a task's images with replacement."""
    generator, rows, drawn = np.random.default_rng(0), [], []
    for name, task in tasks.items():
        truth = np.array([label for _, label in task["test"]])
        count = len(truth)
        weights = np.vstack(
            [np.ones(count), generator.multinomial(count, np.full(count, 1 / count), 1000)]
        )
        for probe in PROBES:
            found = [balanced(hits[name, probe], truth, weights) for hits in (base, refined)]
            drawn.append(found[1] - found[0])
            rows.append({"task": name, "probe": probe, "change": drawn[-1][0]})
    low, high = np.nanquantile(np.mean(drawn, axis=0)[1:], [0.025, 0.975])
    return pd.DataFrame(rows).assign(low=low, high=high)


def as_table(rows: pd.DataFrame) -> str:
    """Format mean changes: a line for each variant and size, over draws."""
    lines = ["| variant | pairs | mean of each draw [95 %] | lowest task |", "|---|---:|---|---:|"]
    for (variant, size), part in rows.groupby(["variant", "size"], sort=False):
        draws = part.groupby("draw").agg(
            change=("change", "mean"), low=("low", "first"), high=("high", "first")
        )
        cells = [f"{d.change:+.1f} [{d.low:+.1f}, {d.high:+.1f}]" for d in draws.itertuples()]
        lowest = part.groupby(["draw", "task"])["change"].mean().min()
        lines.append(f"| {variant} | {size} | {', '.join(cells)} | {lowest:+.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line and run what is not there yet."""
    settings = parse(Settings, "Measure recipes on the quickstart's phantoms, by number of pairs.")
    require_variants(settings.variants)
    settings.output.mkdir(parents=True, exist_ok=True)
    source, path = settings.quickstart, settings.output / "evidence.csv"
    table = pd.read_csv(source / "phantoms/pairs.csv", dtype=str)
    table["image"] = [str((source / "phantoms" / name).resolve()) for name in table["image"]]
    tasks = read_tasks(source / "phantoms/tasks")
    base = score(source / "base.pth", tasks)
    for size in settings.sizes:
        for draw in range(settings.draws):
            pairs = settings.output / f"pairs_{size}_{draw}.csv"
            chosen = draw_pairs(table, size, np.random.default_rng(size + draw))
            chosen[["image", "report", "patient_id"]].to_csv(pairs, index=False)
            for variant in settings.variants:
                done = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["variant"])
                seen = done[done["variant"] == variant]
                if len(seen) and ((seen["size"] == size) & (seen["draw"] == draw)).any():
                    continue
                name = f"{variant.replace(' ', '_').replace(',', '')}_{size}_{draw}"
                weights = train(
                    source / "base.pth", source / "bert", pairs, settings.output, name,
                    VARIANTS[variant],
                )  # fmt: skip
                rows = changes(base, score(weights, tasks), tasks)
                rows = rows.assign(variant=variant, size=size, draw=draw)
                rows.to_csv(path, mode="a", header=not path.is_file(), index=False)
                print(as_table(rows), flush=True)
    print(as_table(pd.read_csv(path)))


if __name__ == "__main__":
    run_entry_point(main)
