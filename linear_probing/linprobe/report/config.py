"""Settings of ``report.py``: one field, one flag, one line of ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retfiner.common.cli import flag
from retfiner.common.errors import InputError
from retfiner.common.metrics import ALL_METRICS
from retfiner.common.numbers import NonNegativeInt, PositiveInt
from retfiner.common.patients import Unit


@dataclass(frozen=True)
class ModelSettings:
    """Models."""

    base: list[str] = flag(
        "what to compare with, a model of --results (of several weights: name-hash), or one for"
        " each of --refined"
    )
    refined: list[str] = flag("models to be compared with it, likewise", [])
    results: Path = flag("folder of the probing results", Path("__results"))
    predictions: list[Path] = flag(
        "tables of predictions (CSV or Parquet) of other models, or folders of their runs", []
    )
    data_set: list[str] = flag("data sets to report on; by default all", [])
    protocol: list[str] = flag(
        "beginning of a protocol's fingerprint, to choose where a model has runs of several", []
    )


@dataclass(frozen=True)
class ScoreSettings:
    """Scores."""

    unit: Unit | None = flag("scored as one; by default image, or what mil pooled", None)
    metric: str | None = flag(
        "metric of the main table (docs/statistics.md); by default balanced_accuracy, or what fits"
        " grades, labels or values",
        None,
    )
    ordered: list[str] = flag(
        "data sets whose classes are a scale, for quadratic kappa: name=least,more,most", []
    )
    bootstrap: PositiveInt = flag("resamples of the patients behind the intervals", 1000)
    swaps: PositiveInt = flag("permutations behind the p-value of one data set", 1999)
    seed: NonNegativeInt = flag("seed of resamples and permutations", 0)


@dataclass(frozen=True)
class OutputSettings:
    """Output."""

    output: Path | None = flag("folder to write to; by default report in --results", None)


@dataclass(frozen=True)
class ReportConfig(OutputSettings, ScoreSettings, ModelSettings):
    """Settings of a report; each class above is a heading of its ``--help``."""

    @property
    def folder(self) -> Path:
        """Where the report is written."""
        return self.output or self.results / "report"

    def __post_init__(self) -> None:
        """Check what a type alone cannot say.

        Raises:
            InputError: If the metric is unknown or models do not pair up.
        """
        if self.metric is not None and self.metric not in ALL_METRICS:
            raise InputError("No such metric.", got=self.metric, expected=", ".join(ALL_METRICS))
        if len(self.base) not in (1, len(self.refined)):
            raise InputError(
                "Base and refined models do not pair up.",
                got=f"{len(self.base)} base ({', '.join(self.base)}), {len(self.refined)} refined "
                f"({', '.join(self.refined)})",
                expected="one base model for all, or one for each refined model in the same order",
            )
        twice = {name for name in self.refined if [*self.refined, *self.base].count(name) > 1}
        if twice:
            raise InputError("A model is named twice.", got=", ".join(sorted(twice)))
        if any("=" not in word for word in self.ordered):
            raise InputError("--ordered takes name=least,more,most", got=" ".join(self.ordered))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """What is compared: base and other model."""
        bases = self.base if len(self.base) > 1 else self.base * len(self.refined)
        return list(zip(bases, self.refined, strict=True))

    @property
    def scales(self) -> dict[str, list[str]]:
        """Classes in order, by data set."""
        words = (word.partition("=") for word in self.ordered)
        return {name: classes.split(",") for name, _, classes in words}
