"""Build a report: read predictions, compute, then write every file of it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from linprobe.report import tables as lay
from linprobe.report.config import ReportConfig
from linprobe.report.figures import EfficiencyPoint, draw_all
from linprobe.report.loading import Loaded, load
from linprobe.report.summary import MEAN, Summary, summarise
from linprobe.statistics import FloatArray, data_sets_needed
from retfiner.common.errors import InputError, shorten
from retfiner.common.faults import explained_faults
from retfiner.common.files import whole_file, write_text
from retfiner.common.metrics import METRICS
from retfiner.common.predictions import TABLE, read_table
from retfiner.common.progress import track

FIGURES = "figures"
DPI = 200
PIXELS_PER_INCH = 115
"""Width of a figure on the page: its text is then as large as that of the page's notes."""

READING = (
    (
        "What is compared",
        "A frozen vision backbone turns each B-scan into features, and a small head is trained on "
        "them. All models are probed in the same way, on the same images, so that a change comes "
        "from the weights alone.",
    ),
    (
        "What the spread and the interval mean",
        "± is the standard deviation over seeds: the chance of training a head. The 95 % interval "
        "is that of drawing other patients from the same clinic. Neither holds the luck of one "
        "refinement: for that, refine with several seeds.",
    ),
    (
        "What a p-value means",
        "How often a change at least as large would arise if the two models were exchangeable. On "
        "one data set patients are the units; for the claim that a model helps over data sets, "
        "data sets are, and a handful of them can show little. Looking at many data sets finds "
        "something by chance; p (Holm) corrects for that.",
    ),
    (
        "Colours",
        "The base is blue, dashed and hollow, the first model compared with it vermilion, solid "
        "and filled, in every figure. Classes differ in colour and in mark.",
    ),
)


@dataclass(frozen=True)
class Report:
    """What a report holds.

    Attributes:
        summary: Its numbers.
        table: Its main table.
        remarks: What a reader must know of just these numbers.
        files: What was written, in the order of reading.
    """

    summary: Summary
    table: lay.Table
    remarks: list[str]
    files: list[Path]


@explained_faults()
def build_report(config: ReportConfig) -> Report:
    """Compare models and write ``index.html``, tables, CSV files and figures.

    Nothing is written before all predictions are read and compared; each file is written whole.

    Raises:
        InputError: If predictions cannot be read or compared.
    """
    alone = config.base if not config.refined else ()
    loaded = load(config.results, config.predictions, config.pairs, alone, config.data_set,
                  config.protocol)  # fmt: skip
    unknown = sorted(config.scales.keys() - set(loaded.data_sets))
    if unknown:
        raise InputError("--ordered names other data sets", got=shorten(unknown),
                         expected=", ".join(loaded.data_sets))  # fmt: skip
    numbers: dict[str, Any] = {
        "scales": config.scales, "resamples": config.bootstrap, "swaps": config.swaps,
        "seed": config.seed,
    }  # fmt: skip
    summary = summarise(loaded, config.metric, **numbers)
    efficiency, word = _efficiency(loaded, config.metric, numbers)
    marks, notes = _marked_notes(loaded)
    main = lay.main_table(summary, marks)
    remarks = [f"{marks[name].strip()} {name}: {' '.join(notes[name])}" for name in marks]
    remarks += [*_notes(loaded), *lay.warnings(summary)]
    main.notes.extend(remarks)
    shown = [main]
    if len(summary.models) > 2:
        shown += [lay.leaderboard(summary), lay.pairwise_table(summary)]
    shown.append(lay.metrics_table(summary))
    folder = config.output
    texts = {
        "table.md": lay.render(shown, "md"),
        "table.tex": lay.render(shown, "tex"),
        "table_document.tex": lay.templates().get_template("document.tex").render(),
        "changes.csv": _changes_csv(summary),
        "metrics.csv": summary.metrics.to_csv(index=False),
        TABLE: loaded.table.drop(columns="name").to_csv(index=False),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    pictures, files = [], []
    features = _features(loaded, summary) if config.map_points else {}
    drawings = draw_all(summary, efficiency, word, features, config.map_points, config.seed)
    for drawing in track(drawings, "drawing figures"):
        stem = folder / FIGURES / drawing.name
        data = base64.b64encode(_write_figure(stem, drawing.figure)).decode("ascii")
        width = round(drawing.figure.get_figwidth() * PIXELS_PER_INCH)
        pictures.append({"title": drawing.title, "caption": drawing.caption, "data": data,
                         "width": width, "after": drawing.after})  # fmt: skip
        files += [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf")]
    page = (
        lay.templates()
        .get_template("page.html")
        .render(
            title="Base and refined models compared" if summary.pairs else "A model probed",
            lead=main.caption,
            warnings=_leaks(loaded),
            cards=_cards(summary),
            tables=shown,
            pictures=pictures,
            class_tables=lay.class_tables(summary),
            reading=READING,
            provenance=[(name, _provenance(loaded, name)) for name in loaded.names],
        )
    )
    write_text(folder / "index.html", page)
    return Report(
        summary, main, remarks, [folder / "index.html", *(folder / n for n in texts), *files]
    )


def _cards(summary: Summary) -> list[dict[str, str]]:
    """Say the result of each comparison in a line; of a model alone, its mean."""
    unit = " points" if METRICS[summary.metric].scale == 100 else ""
    if not summary.pairs:
        [model] = summary.models
        score = summary.scores[model, MEAN]
        return [
            {
                "title": model,
                "number": f"{score.mean:.2f}",
                "text": f"95 % interval {lay.interval_text(score.interval, sign=False)}",
            }
        ]
    cards = []
    for pair in summary.pairs:
        mean = summary.of_pair(pair)[-1]
        base, other = (summary.scores[model, MEAN].mean for model in pair)
        test = f"p over {len(summary.sets)} data sets = {lay.p_text(mean.p_holm)}"
        if summary.too_few:
            test = (
                f"whether it helps beyond these {len(summary.sets)} data sets cannot be tested "
                f"with fewer than {data_sets_needed()}"
            )
        text = (
            f"{base:.2f} to {other:.2f} on average; 95 % interval by patient "
            f"{lay.interval_text(mean.interval)}; {test}"
        )
        number = f"{lay.signed(mean.change)}{unit}"
        cards.append({"title": f"{pair[0]} → {pair[1]}", "number": number, "text": text})
    return cards


def _efficiency(
    loaded: Loaded, metric: str, numbers: dict[str, Any]
) -> tuple[list[EfficiencyPoint], str]:
    """Score every share of the training images at which all data sets were probed."""
    if len(loaded.fractions) < 2:
        return [], ""
    points, words = [], set()
    for fraction in loaded.fractions:
        rows = loaded.table[loaded.table["fraction"] == fraction]
        part = Loaded(rows, list(dict.fromkeys(rows["name"])), [], [])
        complete = all(set(part.at(name, fraction)["name"]) == set(part.names)
                       for name in loaded.data_sets)  # fmt: skip
        if not complete or part.data_sets != loaded.data_sets:
            continue
        summary = summarise(part, metric, **numbers)
        for model in part.names:
            counts = [one.trained_on[model] for one in summary.sets]
            known = [count for count in counts if count is not None]
            if len(known) == len(counts):
                words |= {word for _, word in known}
                score = summary.scores[model, MEAN]
                trained = float(np.mean([count for count, _ in known]))
                points.append(EfficiencyPoint(model, trained, score.mean, score.interval))
    return points, words.pop() if len(words) == 1 else "patients or images"


def _marked_notes(loaded: Loaded) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Give each data set with notes a mark, and gather what its runs have to say."""
    notes: dict[str, list[str]] = {}
    for run in loaded.runs:
        for note in run["notes"]:
            told = notes.setdefault(run["data_set"], [])
            told += [note] * (note not in told)
    return {name: f" [{chr(97 + k % 26)}]" for k, name in enumerate(sorted(notes))}, notes


def _leaks(loaded: Loaded) -> list[str]:
    """Gather what makes numbers worthless, for the top of the page."""
    found = {
        f"{run['data_set']}: {note}"
        for run in loaded.runs
        for note in run["notes"]
        if ("training pairs" in note or " are in " in note) and "test" in note
    }
    return sorted(found)


def _notes(loaded: Loaded) -> list[str]:
    """Say what a table of these runs does not show by itself."""
    notes = [
        f"{run['name']}: {note}"
        for run in {run["name"]: run for run in loaded.runs}.values()
        for note in run["context"].get("notes_on_weights", [])
    ]
    if loaded.main_fraction != 1:
        notes.append(
            f"No run used all training images; the table shows those that used "
            f"{loaded.main_fraction:.3g} of them."
        )
    versions = {n: {r["versions"].get(n) for r in loaded.runs} for n in ("torch", "timm", "numpy")}
    mixed = [f"{name} {' and '.join(sorted(map(str, found)))}"
             for name, found in versions.items() if len(found) > 1]  # fmt: skip
    if mixed:
        notes.append(f"Runs were made with different software: {shorten(mixed)}.")
    backbones = sorted({str(run["settings"].get("backbone")) for run in loaded.runs} - {"None"})
    if len(backbones) > 1:
        notes.append(
            f"Models of several backbones, each with its own features: {shorten(backbones)}."
        )
    probes = loaded.table.groupby("name")["probe"].first()
    if probes.nunique() > 1:
        notes.append(f"Models differ in their probes: {probes.to_dict()}.")
    seeds = loaded.table.groupby(["name", "data_set"])["seed"].unique().map(sorted).map(tuple)
    if seeds.nunique() > 1:
        told = {f"{name} {', '.join(map(str, own))}" for (name, _), own in seeds.items()}
        notes.append(f"Seeds differ: {shorten(sorted(told), 4)}. Each model's are averaged.")
    return notes


def _provenance(loaded: Loaded, name: str) -> list[tuple[str, str]]:
    """List what is known of a model's runs, a line for each setting and its values."""
    found: dict[str, list[str]] = {}
    for run in loaded.runs:
        if run["name"] == name:
            about = {"model": run["model"], **run["settings"], **run["context"], **run["versions"]}
            for key, value in about.items():
                told = found.setdefault(key, [])
                told += [str(value)] * (str(value) not in told)
    return [(key, shorten(values, 6)) for key, values in found.items()] or [
        ("table", "predictions that were brought along; nothing else is known of them")
    ]


def _changes_csv(summary: Summary) -> str:
    rows = [
        {"base": one.base, "refined": one.model, "data_set": one.data_set,
         "base_mean": summary.scores[one.base, one.data_set].mean,
         "base_std": summary.scores[one.base, one.data_set].deviation,
         "refined_mean": summary.scores[one.model, one.data_set].mean,
         "refined_std": summary.scores[one.model, one.data_set].deviation,
         "change": one.change, "low": (one.interval or (None, None))[0],
         "high": (one.interval or (None, None))[1], "p": one.p, "p_holm": one.p_holm}
        for one in summary.changes
    ]  # fmt: skip
    return str(pd.DataFrame(rows).to_csv(index=False))


def _features(loaded: Loaded, summary: Summary) -> dict[tuple[str, str], FloatArray]:
    """Read the features of the test images, in the order of the images of a data set."""
    found: dict[tuple[str, str], FloatArray] = {}
    for run in loaded.runs:
        path, key = run["folder"] / "features.npy", (run["name"], run["data_set"])
        if key in found or not path.is_file():
            continue
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path} cannot be read", got=error) from error
        order = np.argsort(read_table(run["folder"] / TABLE)["image"].to_numpy(str))
        sets = {one.name: one for one in summary.sets}
        if run["data_set"] in sets and values.ndim == 2 and len(values) == len(order):
            found[key] = np.asarray(values[order], dtype=np.float64)
    return found


def _write_figure(stem: Path, figure: Figure) -> bytes:
    """Write a figure as PNG and PDF, without a date, so that the same runs give the same files."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    png = buffer.getvalue()
    with whole_file(stem.with_name(f"{stem.name}.png")) as temporary:
        temporary.write_bytes(png)
    with whole_file(stem.with_name(f"{stem.name}.pdf")) as temporary:
        figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
    return png


def say(report: Report, output: Path) -> None:
    """Print the main table and where everything lies."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a log file has no width; the table needs its own
    console.print(lay.render_terminal(report.table))
    for note in report.remarks:
        console.print(f"- {note}", highlight=False, markup=False)
    lines: Sequence[str] = (
        f"\nPage:    {report.files[0]}",
        f"Tables:  {output}/table.{{md,tex}}, changes.csv, metrics.csv, {TABLE}",
        f"Figures: {output}/figures (PNG and PDF)",
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
