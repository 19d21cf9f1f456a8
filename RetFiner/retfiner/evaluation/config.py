"""Every setting of ``evaluate.py``: one field, one flag, one line of ``--help``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retfiner.common.cli import flag
from retfiner.common.commands import REPOSITORY
from retfiner.common.errors import InputError
from retfiner.common.numbers import NonNegativeInt, OpenUnitInterval, PositiveInt
from retfiner.config import Precision

Task = Literal["retrieval", "zero_shot", "report"]
Part = Literal["validation", "all"]

RESULTS = REPOSITORY / "linear_probing" / "__results"


@dataclass(frozen=True)
class SubjectSettings:
    """What is evaluated."""

    task: Task = flag("what to evaluate; zero_shot: classes described in words")
    model: Path = flag("folder of a refinement run, or its best-model.ckpt")
    data: Path = flag("CSV of pairs (retrieval, report), or folder of labelled images (zero_shot)")
    text_encoder: Path | None = flag(
        "folder of the text encoder, for checkpoints without their tokenizer", None
    )


@dataclass(frozen=True)
class PairSettings:
    """Pairs, for --task retrieval and report."""

    part: Part | None = flag(
        "validation: patients the model was not trained on; by default that where --data is its"
        " training CSV, else all",
        None,
    )
    image_root: Path | None = flag(
        "folder the image paths are relative to; by default the CSV's", None
    )
    image_column: str | None = flag(
        "column with the image's path; by default as in the model's training", None
    )
    report_column: str | None = flag(
        "column with the report; by default as in the model's training", None
    )
    patient_column: str | None = flag(
        "column with the patient, or none; by default as in the model's training", None
    )
    slice_column: str | None = flag(
        "column with the B-scan's index in a volume; by default as in the model's training", None
    )
    group_column: str | None = flag(
        "column with the exam, or none to take images one by one; by default as in the model's"
        " training",
        None,
    )
    on_bad_row: Literal["error", "skip"] = flag("what to do with rows that cannot be used", "error")


@dataclass(frozen=True)
class RetrievalSettings:
    """Retrieval."""

    rerank_top: NonNegativeInt | None = flag(
        "best candidates put in order by image-text matching, 0 for none; by default 16 where the"
        " model was trained to match",
        None,
    )
    save: Path | None = flag(".csv or .npz for the best 10 of each query", None)


@dataclass(frozen=True)
class ZeroShotSettings:
    """Zero-shot classification."""

    split: str | None = flag(
        "train, val or test; by default test where the folder has splits", None
    )
    prompts: Path | None = flag(
        "YAML file, class: [descriptions]; by default the one in prompts/ of the data set's name",
        None,
    )
    results: Path = flag("folder of results that report.py reads", RESULTS)
    name: str | None = flag("the model's name in the results; by default its folder's", None)


@dataclass(frozen=True)
class ReportSettings:
    """Written reports, for --task report."""

    decode: Literal["greedy", "beam", "nucleus"] = flag(
        "the likeliest token each time, the likeliest report found, or drawn", "greedy"
    )
    beams: PositiveInt = flag("candidates of a beam search", 4)
    top_p: OpenUnitInterval = flag(
        "nucleus draws among the likeliest tokens that hold this probability", 0.9
    )
    page: Path | None = flag("HTML page with both reports side by side", None)
    page_rows: PositiveInt = flag("most rows on the page", 200)
    thumbnails: bool = flag("put the images themselves on the page", False)


@dataclass(frozen=True)
class RunSettings:
    """Run."""

    output: Path | None = flag("JSON file for all numbers", None)
    bootstrap: NonNegativeInt = flag(
        "resamples of the patients for 95 % intervals (retrieval, zero_shot); 0 for none", 1000
    )
    batch_size: PositiveInt = flag("images at a time", 64)
    device: str = flag("what torch calls it; auto takes a GPU where there is one", "auto")
    precision: Precision = flag("auto is bfloat16 where the device is made for it", "auto")
    num_workers: NonNegativeInt | None = flag(
        "processes that read images; by default one a core, at most 8", None
    )
    seed: NonNegativeInt = flag("seed of resamples and drawn reports", 0)


def _flags(settings: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(settings))


_TASKS: dict[str, frozenset[str]] = {
    **dict.fromkeys(_flags(PairSettings), frozenset({"retrieval", "report"})),
    **dict.fromkeys(_flags(RetrievalSettings), frozenset({"retrieval"})),
    **dict.fromkeys(_flags(ZeroShotSettings), frozenset({"zero_shot"})),
    **dict.fromkeys(_flags(ReportSettings), frozenset({"report"})),
    "bootstrap": frozenset({"retrieval", "zero_shot"}),
}
"""The flags that not every task knows; given with another task, they are an error."""


@dataclass(frozen=True)
class EvaluateConfig(
    RunSettings,
    ReportSettings,
    ZeroShotSettings,
    RetrievalSettings,
    PairSettings,
    SubjectSettings,
):
    """Settings of ``evaluate.py``; each class above is a heading of its ``--help``."""

    def __post_init__(self) -> None:
        """Check what a type alone cannot say.

        Raises:
            InputError: If a flag has no effect with the others, or a file's kind is unknown.
        """
        for field in dataclasses.fields(self):
            tasks = _TASKS.get(field.name)
            if tasks is None or self.task in tasks or getattr(self, field.name) == field.default:
                continue
            raise self._without_effect(field.name, f"--task {' or '.join(sorted(tasks))}")
        if self.beams != 4 and self.decode != "beam":
            raise self._without_effect("beams", "--decode beam")
        if self.top_p != 0.9 and self.decode != "nucleus":
            raise self._without_effect("top_p", "--decode nucleus")
        if self.page is None and (self.thumbnails or self.page_rows != 200):
            raise self._without_effect("thumbnails" if self.thumbnails else "page_rows", "--page")
        if self.save is not None and self.save.suffix not in {".csv", ".npz"}:
            raise InputError("--save is of an unknown kind", got=self.save, expected=".csv or .npz")

    def _without_effect(self, name: str, needed: str) -> InputError:
        return InputError(
            f"--{name} has no effect here",
            got=f"--{name} {getattr(self, name)} with --task {self.task}",
            expected=f"--{name} with {needed} only",
        )
