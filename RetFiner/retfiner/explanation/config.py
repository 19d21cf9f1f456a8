"""The settings of ``explain.py``: one field, one flag, one line of ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retfiner.common.cli import flag
from retfiner.common.errors import InputError
from retfiner.common.numbers import NonNegativeInt, PositiveInt


@dataclass(frozen=True)
class PairSettings:
    """What is explained: one image, or exam, and its report, or a row of a table."""

    model: Path = flag("run folder or best-model.ckpt of a refined model")
    image: str | None = flag(
        "the B-scan, as scan.e2e#12; for a model of exams also a volume or a folder",
        None,
        metavar="PATH",
    )
    report: str | None = flag("the text whose words are shown", None, metavar="TEXT")
    data: Path | None = flag("CSV of pairs, instead of --image and --report", None)
    row: PositiveInt | None = flag("row of that CSV, the header being row 1", None)
    image_root: Path | None = flag("folder its paths are relative to; by default the CSV's", None)
    image_column: str | None = flag(
        "its column with the image's path; by default as in the model's training", None
    )
    report_column: str | None = flag(
        "its column with the report; by default as in the model's training", None
    )
    patient_column: str | None = flag(
        "its column with the patient, or none; by default as in the model's training", None
    )
    group_column: str | None = flag(
        "its column with the exam, or none to take the image alone; by default as in the model's"
        " training",
        None,
    )


@dataclass(frozen=True)
class MapSettings:
    """Maps."""

    maps: Literal["weighted", "attention"] = flag(
        "weighted by the gradient of the match score, or attention alone", "weighted"
    )
    layer: NonNegativeInt | None = flag(
        "cross-attention layer, from 0, never the last; by default the middle one", None
    )


@dataclass(frozen=True)
class RunSettings:
    """Run."""

    output: Path = flag("folder to write to", Path("explain"))
    html: bool = flag("also write a page on which pointing at a word shows its map", False)
    text_encoder: Path | None = flag("folder with the tokenizer, for old checkpoints", None)
    device: str = flag("cpu, cuda, mps, or auto", "auto")


@dataclass(frozen=True)
class ExplainConfig(RunSettings, MapSettings, PairSettings):
    """Settings of ``explain.py``; each class above is a heading of its ``--help``."""

    def __post_init__(self) -> None:
        """Check that one pair is named.

        Raises:
            InputError: If none is, or two are.
        """
        by_hand = self.image is not None and self.report is not None
        by_row = self.data is not None and self.row is not None
        mixed = (self.image or self.report) and (self.data or self.row)
        if mixed or not (by_hand or by_row):
            raise InputError(
                "One image and its report must be named",
                expected='--image scan.png --report "...", or --data pairs.csv --row 2',
            )
