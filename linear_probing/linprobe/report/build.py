"""Build a report: read predictions, compute, then write every file of it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from linprobe.report import tables as lay
from linprobe.report.config import ReportConfig
from linprobe.report.figures import Drawing, EfficiencyPoint, draw_all
from linprobe.report.loading import Loaded, load
from linprobe.report.methods import methods_paragraph
from linprobe.report.subgroups import subgroup_tables
from linprobe.report.summary import MEAN, Summary, mean_scores, summarise
from linprobe.report.transfer import transfer_tables
from retfiner.common.console import wide_console
from retfiner.common.errors import InputError, shorten
from retfiner.common.faults import explained_faults
from retfiner.common.files import whole_file, write_text
from retfiner.common.metrics import ALL_METRICS, MAIN_METRIC, VALUE_METRICS
from retfiner.common.predictions import TABLE
from retfiner.common.progress import track

FIGURES = "figures"
_LEAK = re.compile(r"^(?=.*test).*(training pairs| are in )", re.DOTALL)
"""What makes numbers worthless, and belongs on top of the page."""
DPI = 200
PIXELS_PER_INCH = 115
"""Width of a figure on the page: its text is then as large as that of the page's notes."""


@dataclass(frozen=True)
class Report:
    """Numbers of the first kind of task, tables of results of each, notes, files written."""

    summary: Summary
    tables: list[lay.Table]
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
                  config.protocol).by_unit(config.unit)  # fmt: skip
    inner, outer, train_sets = loaded.divided()
    part = inner or loaded
    _check_scales(config, loaded)
    numbers: dict[str, Any] = {
        "scales": config.scales, "resamples": config.bootstrap, "seed": config.seed,
    }  # fmt: skip
    tested = {**numbers, "swaps": config.swaps}
    kinds = part.by_kind()
    metrics = _metrics_of(kinds, config.metric, loaded)
    every = [summarise(own, metrics[kind], **tested) for kind, own in kinds.items()]
    summary = every[0]
    notes = _noted(loaded)
    marks = {name: f" [{chr(97 + k % 26)}]" for k, name in enumerate(notes)}
    remarks = [f"{marks[name].strip()} {name}: {' '.join(notes[name])}" for name in marks]
    remarks += [*_notes(loaded), *lay.warnings(summary)]
    shown, results = [], []
    for one in every:
        table = lay.main_table(one, marks)
        told = [*table.notes, *remarks] if one is summary else lay.warnings(one)
        tables = [replace(table, notes=told), *_of_several(one)]
        if one is summary and outer is not None and inner is not None:
            outside = summarise(outer, _metric_of("classes", config.metric), **tested)
            tables += transfer_tables(
                one, outside, train_sets, config.bootstrap, config.seed, marks
            )
        tables += [*subgroup_tables(one, config.bootstrap, config.seed), lay.metrics_table(one)]
        results.append(tables[0])
        if one is not summary:
            tables = [replace(table, title=_of_kind(table.title, one)) for table in tables]
        shown += tables
    told = [f"{name.removeprefix(f'{own}_to_')} (trained on {own})"
            for name, own in sorted(train_sets.items()) if inner is not None]  # fmt: skip
    methods = methods_paragraph(part, every, told, config.bootstrap, config.swaps)
    texts = {
        "table.md": lay.render("tables.md", tables=shown),
        "table.tex": lay.render("tables.tex", tables=shown),
        "methods.txt": f"{methods}\n",
        "changes.csv": pd.concat(map(_changes, every)).to_csv(index=False),
        "metrics.csv": pd.concat(one.metrics.assign(task=one.kind) for one in every).to_csv(
            index=False
        ),
        TABLE: loaded.table.drop(columns=["name", "amount"]).to_csv(index=False),
    }
    for name, text in texts.items():
        write_text(config.folder / name, text)
    efficiency = _efficiency(kinds[summary.kind], summary.metric, numbers)
    pictures, files = _draw(_drawings(every, efficiency), config.folder / FIGURES)
    page = lay.render(
        "page.html",
        title=_title(summary),
        lead=f"{', '.join(summary.models)} on {', '.join(part.data_sets)}.",
        warnings=[f"{name}: {n}" for name, told in notes.items() for n in told if _LEAK.search(n)],
        cards=[
            {**card, "title": _of_kind(card["title"], one) if every[1:] else card["title"]}
            for one in every
            for card in _cards(one)
        ],
        tables=shown,
        pictures=pictures,
        class_tables=[table for one in every for table in lay.class_tables(one)],
        methods=methods,
        provenance=[(name, _provenance(loaded, name)) for name in loaded.names],
    )
    place = config.folder / "index.html"
    write_text(place, page)
    return Report(summary, results, remarks, [place, *(config.folder / n for n in texts), *files])


def _check_scales(config: ReportConfig, loaded: Loaded) -> None:
    unknown = sorted(config.scales.keys() - set(loaded.table["data_set"]))
    if unknown:
        raise InputError("--ordered names other data sets", got=shorten(unknown),
                         expected=", ".join(loaded.data_sets))  # fmt: skip


def _metrics_of(kinds: dict[str, Loaded], asked: str | None, loaded: Loaded) -> dict[str, str]:
    """Choose the metric of each kind of task; the one asked for has to fit one of them."""
    metrics = {kind: _metric_of(kind, asked) for kind in kinds}
    if asked is not None and asked not in metrics.values():
        raise InputError(
            f"{ALL_METRICS[asked].label} exists on none of the data sets.",
            got=shorten(loaded.data_sets),
            remedy="choose another --metric",
        )
    if asked == "mae" and len(kinds["regression"].data_sets) > 1:
        raise InputError(
            "Errors in different units have no mean, and --metric mae fits one data set only",
            got=shorten(kinds["regression"].data_sets),
            remedy="choose one with --data_set, or leave --metric out: R² has no unit, and each "
            "data set's error stands under Each class",
        )
    return metrics


def _drawings(
    every: Sequence[Summary], efficiency: tuple[Sequence[EfficiencyPoint], str]
) -> Iterator[Drawing]:
    """Draw the figures of each kind of task; those behind the first say which they are of."""
    yield from draw_all(every[0], *efficiency)
    for other in every[1:]:
        for one in draw_all(other):
            yield one._replace(name=f"{one.name}_{other.kind}", title=_of_kind(one.title, other),
                               after=one.after and _of_kind(one.after, other))  # fmt: skip


def _metric_of(kind: str, asked: str | None) -> str:
    """Choose the metric of a kind of task: the one asked for, where it fits."""
    fits = asked is not None and (asked in VALUE_METRICS) == (kind == "regression")
    fits = fits and not (kind == "multilabel" and asked and ALL_METRICS[asked].ordered)
    return asked if asked and fits else MAIN_METRIC[kind]


def _of_kind(title: str, summary: Summary) -> str:
    return f"{title}: {lay.WORDS[summary.kind]}"


def _of_several(summary: Summary) -> list[lay.Table]:
    """Lay out what more than two models need."""
    several = len(summary.models) > 2
    return [lay.leaderboard(summary), lay.pairwise_table(summary)] if several else []


def _draw(drawings: Iterable[Drawing], folder: Path) -> tuple[list[dict[str, Any]], list[Path]]:
    """Write figures; give them as the page shows them, and their files."""
    pictures, files = [], []
    for drawing in track(drawings, "drawing figures"):
        png, written = _write_figure(folder / drawing.name, drawing.figure)
        width = round(drawing.figure.get_figwidth() * PIXELS_PER_INCH)
        data = base64.b64encode(png).decode("ascii")
        pictures.append({**drawing._asdict(), "data": data, "width": width})
        files += written
    return pictures, files


def _title(summary: Summary) -> str:
    if not summary.pairs:
        return f"{summary.models[0]} probed"
    several = len(summary.models) > 2
    return f"{len(summary.models)} models compared" if several else " and ".join(summary.models)


def _cards(summary: Summary) -> list[dict[str, str]]:
    """Say the result of each comparison in a line; of a model alone, its mean."""
    info, digits = ALL_METRICS[summary.metric], ALL_METRICS[summary.metric].digits
    if not summary.pairs:
        [model] = summary.models
        score = summary.scores[model, MEAN]
        text = f"95 % interval {lay.interval_text(score.interval, False, digits)}"
        return [{"title": model, "number": lay.number(score.mean, digits), "text": text}]
    unit = " points" if info.scale == 100 else ""
    n, cards = summary.independent, []
    for pair in summary.pairs:
        mean = summary.of_pair(pair)[-1]
        base, other = (lay.number(summary.scores[m, MEAN].mean, digits) for m in pair)
        word = "p (Holm)" if len(summary.pairs) > 1 else "p"
        test = f"{word} over {n} data sets = {lay.p_text(mean.p_holm)}"
        if n < summary.needed:
            these = f"these {n} data sets" if n > 1 else "this data set"
            test = f"whether it helps beyond {these} cannot be tested with fewer than "
            test += str(summary.needed)
        cards.append({
            "title": f"{pair[0]} → {pair[1]}",
            "number": f"{lay.number(mean.change, digits, True)}{unit}",
            "text": f"{base} to {other} on average; 95 % interval by {summary.unit} "
            f"{lay.interval_text(mean.interval, True, digits)}; {test}",
        })  # fmt: skip
    return cards


def _efficiency(
    loaded: Loaded, metric: str, numbers: dict[str, Any]
) -> tuple[list[EfficiencyPoint], str]:
    """Score every amount of training images at which all data sets were probed."""
    if len(loaded.amounts) < 2:
        return [], ""
    points, words = [], set()
    for amount in loaded.amounts:
        part = loaded.part(loaded.table[loaded.table["amount"] == amount])
        part = replace(part, pairs=[])
        complete = all(set(part.at(name, amount)["name"]) == set(part.names)
                       for name in loaded.data_sets)  # fmt: skip
        if not complete or part.data_sets != loaded.data_sets:
            continue
        sets, scores = mean_scores(part, metric, **numbers)
        for model, score in scores.items():
            counts = [one.trained_on[model] for one in sets]
            known = [count for count in counts if count is not None]
            if len(known) == len(counts):
                words |= {word for _, word in known}
                trained = float(np.mean([count for count, _ in known]))
                points.append(EfficiencyPoint(model, trained, score.mean, score.interval))
    return points, words.pop() if len(words) == 1 else "patients or images"


def _noted(loaded: Loaded) -> dict[str, list[str]]:
    """Gather what the runs on each data set have to say."""
    told = dict.fromkeys((run["data_set"], note) for run in loaded.runs for note in run["notes"])
    notes = {**loaded.notes}
    for name, note in told:
        notes[name] = [*notes.get(name, []), note]
    return {name: notes[name] for name in sorted(notes) if notes[name]}


def _notes(loaded: Loaded) -> list[str]:
    """Say what a table of these runs does not show by itself."""
    runs, table = loaded.runs, loaded.table
    versions = {
        n: {str(r["versions"].get(n)) for r in runs} for n in ("retfiner", "torch", "timm", "numpy")
    }
    mixed = {name: sorted(found) for name, found in versions.items() if len(found) > 1}
    seeds = table.groupby(["name", "data_set"])["seed"].unique().map(sorted).map(tuple)
    several = {f"{name} {', '.join(map(str, own))}" for (name, _), own in seeds.items()}
    return lay.notes_of(
        "runs.txt",
        first_runs={run["name"]: run for run in runs}.values(),
        amount=loaded.main_amount,
        mixed=shorten([f"{name} {' and '.join(found)}" for name, found in mixed.items()]),
        backbones=sorted({str(run["settings"].get("backbone")) for run in runs} - {"None"}),
        probes=table.groupby("name")["probe"].first().to_dict(),
        seeds=shorten(sorted(several), 4) if seeds.nunique() > 1 else "",
    )


def _provenance(loaded: Loaded, name: str) -> list[tuple[str, str]]:
    """List what is known of a model's runs, a line for each setting and its values."""
    known = [{"model": run["model"], **run["settings"], **run["context"], **run["versions"]}
             for run in loaded.runs if run["name"] == name]  # fmt: skip
    if not known:
        return [("table", "predictions that were brought along; nothing else is known of them")]
    keys = dict.fromkeys(key for about in known for key in about)
    values = {
        key: dict.fromkeys(str(about[key]) for about in known if key in about) for key in keys
    }
    return [(key, shorten(list(found), 6)) for key, found in values.items()]


def _changes(summary: Summary) -> pd.DataFrame:
    rows = [
        {"base": one.base, "refined": one.model, "data_set": one.data_set,
         "base_mean": summary.scores[one.base, one.data_set].mean,
         "base_std": summary.scores[one.base, one.data_set].deviation,
         "refined_mean": summary.scores[one.model, one.data_set].mean,
         "refined_std": summary.scores[one.model, one.data_set].deviation,
         "change": one.change, "low": (one.interval or (None, None))[0],
         "high": (one.interval or (None, None))[1], "p": one.p, "p_holm": one.p_holm,
         "task": summary.kind, "metric": summary.metric}
        for one in summary.changes
    ]  # fmt: skip
    return pd.DataFrame(rows)


def _write_figure(stem: Path, figure: Figure) -> tuple[bytes, list[Path]]:
    """Write a figure as PNG and PDF, without a date, so that the same runs give the same files."""
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "pdf")]
    for path, metadata in zip(paths, ({}, {"CreationDate": None}), strict=True):
        with whole_file(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=DPI, metadata=metadata)
    return paths[0].read_bytes(), paths


def say(report: Report, output: Path) -> None:
    """Print the main table and where everything lies."""
    console = wide_console(120)
    for table in report.tables:
        console.print(lay.render_terminal(table))
    for note in report.remarks:
        console.print(f"- {note}", highlight=False, markup=False)
    lines: Sequence[str] = (
        f"\nPage:    {report.files[0]}",
        f"Tables:  {output}/table.{{md,tex}}, changes.csv, metrics.csv, {TABLE}",
        f"Figures: {output}/figures (PNG and PDF)",
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
