"""The settings of ``python -m retfiner.browse``: one field, one flag, one line of ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retfiner.common.cli import flag
from retfiner.common.errors import InputError
from retfiner.common.numbers import PositiveInt

DESCRIPTION = "A page on this machine: the B-scans and reports that a refined model finds alike."
HIGHEST_PORT = 65535


@dataclass(frozen=True)
class BrowseConfig:
    """Settings of ``python -m retfiner.browse``."""

    model: Path = flag("run folder or best-model.ckpt of a refined model", positional=True)
    data: Path = flag("CSV of pairs to look through")
    image_root: Path | None = flag("folder its paths are relative to; by default the CSV's", None)
    image_column: str | None = flag(
        "its column with the image's path; by default as in the model's training", None
    )
    report_column: str | None = flag(
        "its column with the report; by default as in the model's training", None
    )
    patient_column: str | None = flag(
        "its column with the patient, or none, by which exams are told apart; never shown", None
    )
    slice_column: str | None = flag(
        "its column with the B-scan's index in a volume; by default slice, where there is one", None
    )
    group_column: str | None = flag(
        "its column with the exam, or none to take images one by one; by default as in the model's"
        " training",
        None,
    )
    on_bad_row: Literal["error", "skip"] = flag("what to do with rows that cannot be used", "error")
    text_encoder: Path | None = flag("folder with the tokenizer, for old checkpoints", None)
    port: PositiveInt = flag("where the page is: http://127.0.0.1:<port>", 8501)
    device: str = flag("cpu, cuda, mps, or auto", "auto")

    def __post_init__(self) -> None:
        """Check what a type alone cannot say.

        Raises:
            InputError: If there can be no such port.
        """
        if self.port > HIGHEST_PORT:
            raise InputError(
                "There is no such port", got=f"--port {self.port}", expected=f"1 to {HIGHEST_PORT}"
            )
