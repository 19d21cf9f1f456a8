"""Settings of ``report.py`` and ``ablation.py``: one field, one flag, one line of ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retfiner.common import cli
from retfiner.common.errors import InputError
from retfiner.common.results import METRIC_INFO


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


@dataclass(frozen=True)
class AblationConfig:
    """Settings of ``ablation.py``."""

    base: str = cli.flag("the base model, as <version>/<model> below --results")
    full: str = cli.flag("the model refined with everything, likewise")
    variants: list[str] = cli.flag("models refined with something else, likewise")
    results: Path = cli.flag("folder of the probing results", Path("__results"))
    output: Path = cli.flag("folder for ablation.md and ablation.csv", Path("__results/ablation"))
    metric: str = cli.flag("metric of the table, as for report.py", "balanced_accuracy")

    def __post_init__(self) -> None:
        """Check the metric and that no model is named twice.

        Raises:
            InputError: If one is.
        """
        if self.metric not in METRIC_INFO:
            raise InputError(
                "Unknown metric.", got=self.metric, expected=", ".join(sorted(METRIC_INFO))
            )
        models = [self.base, self.full, *self.variants]
        twice = sorted({name for name in models if models.count(name) > 1})
        if twice:
            raise InputError("A model is named twice.", got=", ".join(twice))
