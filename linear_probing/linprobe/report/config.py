"""Settings of ``report.py``: one field, one flag, one line of ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retfiner.common import cli


@dataclass(frozen=True)
class ReportConfig:
    """Settings of a report."""

    base: list[str] = cli.flag("base models, as <version>/<model> below --results")
    refined: list[str] = cli.flag("refined models, in the order of their base models")
    results: Path = cli.flag("folder of the probing results", Path("__results"))
    output: Path = cli.flag("folder to write the report to", Path("__results/report"))
    metric: str = cli.flag(
        "metric of the main table: balanced_accuracy, auroc, average_precision, f1, mcc, ece, loss",
        "balanced_accuracy",
    )
    fingerprint: list[str] = cli.flag(
        "beginnings of run or protocol fingerprints; chooses where a model has runs with several "
        "settings",
        [],
    )
    zero_shot: list[str] = cli.flag(
        "zero-shot results of evaluate.py, as zero_shot/<model> below --results, shown below the "
        "probes of the same data sets",
        [],
    )
    map_points: int = cli.flag("most test images on a map of the features; 0 draws no map", 500)
    seed: int = cli.flag("seed of the maps of the features", 0)
