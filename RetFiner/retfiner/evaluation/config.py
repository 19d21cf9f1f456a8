"""Every setting of ``evaluate.py``: one field, one flag, one line of ``--help``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retfiner.common.cli import flag
from retfiner.common.errors import InputError
from retfiner.common.numbers import NonNegativeInt, OpenUnitInterval, PositiveInt
from retfiner.config import REPOSITORY, Precision

Task = Literal["retrieval", "zero_shot", "report"]
Part = Literal["validation", "all"]

RESULTS = REPOSITORY / "linear_probing" / "__results"

_PAIRS = frozenset({"retrieval", "report"})
_TASKS: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        ("part", "image_root", "image_column", "report_column", "patient_column", "slice_column",
         "on_bad_row"),
        _PAIRS,
    ),
    **dict.fromkeys(("rerank_top", "save"), frozenset({"retrieval"})),
    **dict.fromkeys(("split", "prompts", "results", "name"), frozenset({"zero_shot"})),
    **dict.fromkeys(
        ("decode", "beams", "top_p", "page", "page_rows", "thumbnails"), frozenset({"report"})
    ),
    "bootstrap": frozenset({"retrieval", "zero_shot"}),
}  # fmt: skip
"""The flags that not every task knows; given with another task, they are an error."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Settings of ``evaluate.py``."""

    task: Task = flag("retrieval, zero_shot (classes described in words), or report (written)")
    model: Path = flag("folder of a refinement run, or its best-model.ckpt")
    data: Path = flag("CSV of pairs (retrieval, report), or folder of labelled images (zero_shot)")
    text_encoder: Path | None = flag(
        "folder of the text encoder, for checkpoints without their tokenizer", None
    )

    part: Part | None = flag(
        "retrieval, report: validation: the patients the model was not trained on, split as in its"
        " training; by default so where the CSV is its own training CSV, else all",
        None,
    )
    image_root: Path | None = flag(
        "retrieval, report: folder the image paths are relative to; by default the CSV's", None
    )
    image_column: str | None = flag(
        "retrieval, report: column with the image's path; by default as in the model's training",
        None,
    )
    report_column: str | None = flag("retrieval, report: column with the report; likewise", None)
    patient_column: str | None = flag(
        "retrieval, report: column with the patient, or none; likewise", None
    )
    slice_column: str | None = flag(
        "retrieval, report: column with the B-scan's index in a volume; likewise", None
    )
    on_bad_row: Literal["error", "skip"] = flag(
        "retrieval, report: what to do with rows that cannot be used", "error"
    )

    rerank_top: NonNegativeInt | None = flag(
        "retrieval: how many of the best are put in order by image-text matching; 0: none; by"
        " default 16 where the model was trained to match",
        None,
    )
    save: Path | None = flag("retrieval: .csv or .npz for the best 10 of each query", None)
    bootstrap: NonNegativeInt = flag(
        "retrieval, zero_shot: resamples of the patients for 95 % intervals; 0: no intervals", 1000
    )

    split: str | None = flag(
        "zero_shot: train, val or test; by default test where the folder has splits", None
    )
    prompts: Path | None = flag(
        "zero_shot: YAML file, class: [descriptions]; by default the one that comes with the data"
        " set's name",
        None,
    )
    results: Path = flag("zero_shot: folder of results that report.py reads", RESULTS)
    name: str | None = flag("zero_shot: the model's name there; by default its folder's", None)

    decode: Literal["greedy", "beam", "nucleus"] = flag(
        "report: the likeliest token each time, the likeliest report found, or drawn", "greedy"
    )
    beams: PositiveInt = flag("report: candidates of a beam search", 4)
    top_p: OpenUnitInterval = flag(
        "report: nucleus draws among the likeliest tokens that hold this probability", 0.9
    )
    page: Path | None = flag("report: HTML page with both reports side by side", None)
    page_rows: PositiveInt = flag("report: most rows on the page", 200)
    thumbnails: bool = flag("report: put the images themselves on the page", False)

    output: Path | None = flag("JSON file for all numbers", None)
    batch_size: PositiveInt = flag("images at a time", 64)
    device: str = flag("what torch calls it; auto takes a GPU where there is one", "auto")
    precision: Precision = flag(
        "arithmetic; auto is bfloat16 where the device is made for it", "auto"
    )
    num_workers: NonNegativeInt | None = flag(
        "processes that read images; by default one a core, at most 8", None
    )
    seed: NonNegativeInt = flag("seed of resamples and drawn reports", 0)

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
