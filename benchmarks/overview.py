"""Draw the picture at the top of the README from what the quickstart has made.

    python benchmarks/overview.py --quickstart quickstart --output docs/pictures/overview.png

A B-scan of a validation patient, its report, where the model looks for one of its words, and the
change in balanced accuracy on four tasks of other patients.
"""

from __future__ import annotations

import csv
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from retfiner import load_model
from retfiner.common.cli import flag, parse
from retfiner.common.errors import InputError, run_entry_point

BASE, REFINED, GREY = "#0072B2", "#D55E00", "#6b6b6b"


@dataclass(frozen=True)
class OverviewConfig:
    """The command line."""

    quickstart: Path = flag("folder that quickstart.sh has made", Path("quickstart"))
    output: Path = flag("PNG to write", Path("docs/pictures/overview.png"))
    image: str = flag("B-scan to show, as pairs.csv names it", "images/P0388_OD_v1.png")
    word: str = flag("word of its report whose map is shown", "PED")


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def draw_report(axis: Axes, report: str) -> None:
    """Write the report."""
    axis.text(
        0.04, 0.97, textwrap.fill(report, 24), va="top", fontsize=10, linespacing=1.5,
        transform=axis.transAxes,
    )  # fmt: skip
    axis.set_title("its report", fontsize=11)


def draw_map(axis: Axes, image: np.ndarray, found: np.ndarray, word: str) -> None:
    """Draw a word's map (g, g) as transparent colour over the B-scan (H, W)."""
    patches = Image.fromarray(found / max(found.max(), 1e-12))
    enlarged = patches.resize(image.shape[::-1], Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(enlarged), 0, 1)
    axis.imshow(image, cmap="gray", vmin=0, vmax=1)
    axis.imshow(strength, cmap="autumn", alpha=0.6 * strength, vmin=0, vmax=1)
    axis.set_title(f"where it looks for “{word}”", fontsize=11)


def draw_gain(axis: Axes, rows: list[dict[str, str]]) -> None:
    """Draw the balanced accuracy of base and refined model on each task."""
    for height, row in enumerate(reversed(rows)):
        base, refined = float(row["base_mean"]), float(row["refined_mean"])
        weight = "bold" if row["data_set"] == "Mean" else "normal"
        axis.plot([base, refined], [height, height], color=GREY, linewidth=1.2, zorder=1)
        axis.plot(base, height, "o", color=BASE, markerfacecolor="white", markersize=6)
        axis.plot(refined, height, "s", color=REFINED, markersize=6)
        axis.annotate(
            f"{refined - base:+.1f}", (refined, height), (7, 0), textcoords="offset points",
            va="center", fontsize=10, weight=weight,
        )  # fmt: skip
        name = row["data_set"].replace("_", " ").replace("Vitreomacular ", "Vitreomac.\n")
        axis.annotate(
            name, (0, height), (-4, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", va="center", fontsize=10, weight=weight,
        )  # fmt: skip
    axis.set(yticks=[], ylim=(-0.6, len(rows) - 0.3), xlim=(20, 86))
    axis.tick_params(labelsize=9)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.set_xlabel("balanced accuracy (%)", fontsize=10)
    axis.set_title("what its features gain", fontsize=11)
    top, first = len(rows) - 1, rows[0]
    for name, colour in (("base", BASE), ("refined", REFINED)):
        axis.annotate(
            name, (float(first[f"{name}_mean"]), top), (0, 8), textcoords="offset points",
            ha="center", fontsize=9, color=colour,
        )  # fmt: skip


def main() -> None:
    """Draw the picture."""
    config = parse(OverviewConfig, "Draw the README's picture.")
    phantoms, [run] = config.quickstart / "phantoms", (config.quickstart / "models").iterdir()
    reports = {row["image"]: row["report"] for row in read_rows(phantoms / "pairs.csv")}
    if config.image not in reports:
        raise InputError("There is no such B-scan", got=config.image, expected="one of pairs.csv")
    explained = load_model(run, "cpu").explain(phantoms / config.image, reports[config.image])
    maps = dict(zip((word.text for word in explained.words), explained.weighted, strict=True))
    if config.word not in maps:
        raise InputError("The report has no such word", got=config.word, expected=", ".join(maps))

    figure = Figure((10, 2.55), layout="constrained", facecolor="white")
    scan, report, where, gain = figure.subplots(
        1, 4, gridspec_kw={"width_ratios": [1.45, 0.95, 1.45, 1.3]}
    )
    for axis in (scan, report, where):
        axis.axis("off")
        axis.set_anchor("N")
    scan.imshow(explained.image, cmap="gray", vmin=0, vmax=1)
    scan.set_title("a B-scan", fontsize=11)
    draw_report(report, explained.report)
    draw_map(where, explained.image, maps[config.word], config.word)
    draw_gain(gain, read_rows(config.quickstart / "results" / "report" / "changes.csv"))
    config.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(config.output, dpi=160)


if __name__ == "__main__":
    run_entry_point(main)
