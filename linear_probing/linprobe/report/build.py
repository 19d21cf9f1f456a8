"""Build a report: read and pair runs, compute, then write every file of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from linprobe.report.comparison import load_pairs
from linprobe.report.figures import draw_all
from linprobe.report.page import Picture, build_page
from linprobe.report.provenance import pair_notes
from linprobe.report.render import LATEX_DOCUMENT, render_latex, render_markdown
from linprobe.report.spreadsheets import rows_csv, runs_csv
from linprobe.report.summary import Row, summarise
from linprobe.report.tables import Table, build_table
from linprobe.report.zero_shot import with_zero_shot
from retfiner.common.errors import InputError
from retfiner.common.faults import explained_faults
from retfiner.common.files import whole_file, write_text
from retfiner.common.results import METRIC_INFO

FIGURES = "figures"
DPI = 200


@dataclass(frozen=True)
class Report:
    """What a report holds.

    Attributes:
        rows: The numbers of the main table.
        table: The main table.
        files: What was written, in the order of reading.
    """

    rows: list[Row]
    table: Table
    files: list[Path]


@explained_faults()
def build_report(
    results: Path | str,
    base: Sequence[str],
    refined: Sequence[str],
    output: Path | str,
    *,
    metric: str = "balanced_accuracy",
    fingerprints: Sequence[str] = (),
    zero_shot: Sequence[str] = (),
    map_points: int = 500,
    seed: int = 0,
) -> Report:
    """Compare models and write ``index.html``, tables, CSV files and figures.

    Nothing is written before all runs are read and paired; each file is written whole.

    Args:
        results: Folder of all results.
        base: ``<version>/<model>`` of the base models.
        refined: ``<version>/<model>`` of the refined models, in the same order.
        output: Folder to write to.
        metric: Key of :data:`retfiner.common.results.METRIC_INFO`.
        fingerprints: Which runs to choose where there are several; see
            :func:`linprobe.report.comparison.load_pairs`.
        zero_shot: ``zero_shot/<model>``, whose values are shown below the probes.
        map_points: Most images on a map of the features; 0 for no map.
        seed: Of the maps.

    Raises:
        InputError: If the metric is unknown or runs cannot be paired.
    """
    if metric not in METRIC_INFO:
        raise InputError("No such metric.", got=metric, expected=", ".join(METRIC_INFO))
    if map_points < 0:
        raise InputError("--map_points is negative.", got=map_points, expected="0 or more")
    pairs = load_pairs(results, base, refined, fingerprints)
    rows, notes = summarise(pairs, metric)
    table = build_table(rows, pairs, metric, [*notes, *pair_notes(pairs)])
    for model in zero_shot:
        table = with_zero_shot(table, results, model, pairs, metric, fingerprints)
    folder = Path(output)
    texts = {
        "table.md": render_markdown(table),
        "table.tex": render_latex(table),
        "table_document.tex": LATEX_DOCUMENT,
        "table.csv": rows_csv(rows),
        "runs.csv": runs_csv(pairs),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    pictures: list[Picture] = []
    figure_files: list[Path] = []
    for drawing in draw_all(pairs, rows, metric, map_points, seed):
        png = _write_figure(folder / FIGURES / drawing.name, drawing.figure)
        figure_files += [folder / FIGURES / f"{drawing.name}.{kind}" for kind in ("png", "pdf")]
        pictures.append(Picture(drawing.title, drawing.caption, png, drawing.figure.get_figwidth()))
    unit = " points" if METRIC_INFO[metric].scale == 100 else ""
    write_text(folder / "index.html", build_page(table, rows, pairs, pictures, unit))
    return Report(rows, table, [folder / "index.html", *(folder / n for n in texts), *figure_files])


def _write_figure(stem: Path, figure: Figure) -> bytes:
    """Write a figure as PNG and PDF, without a date, so that the same runs give the same files.

    Returns:
        The PNG.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    png = buffer.getvalue()
    with whole_file(stem.with_name(f"{stem.name}.png")) as temporary:
        temporary.write_bytes(png)
    with whole_file(stem.with_name(f"{stem.name}.pdf")) as temporary:
        figure.savefig(temporary, format="pdf", metadata={"CreationDate": None})
    return png
