"""Every setting of ``python -m retfiner.data.phantoms``: one field, one flag."""

from __future__ import annotations

from dataclasses import dataclass

from retfiner.common.cli import flag
from retfiner.data.phantoms.optics import DEFAULT_SIZE


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """Output."""

    output: str = flag(
        "folder to write to; a complete one of the same settings is reused", metavar="PATH"
    )
    preview: str = flag(
        "also write a contact sheet of all findings to this PNG file", "", metavar="PATH"
    )


@dataclass(frozen=True, kw_only=True)
class ContentSettings:
    """Content."""

    patients: int = flag("patients among the image-report pairs, about 3.5 scans each", 430)
    train: int = flag("training images of each probing task", 160)
    val: int = flag("validation images of each probing task", 80)
    test: int = flag("test images of each probing task", 160)
    exams: int = flag(
        "also write a volume of so many B-scans for each eye, with one report; 0: none", 0
    )


@dataclass(frozen=True, kw_only=True)
class DrawingSettings:
    """Drawing."""

    height: int = flag("height of a B-scan in pixels", DEFAULT_SIZE[0])
    width: int = flag("width of a B-scan in pixels", DEFAULT_SIZE[1])
    seed: int = flag("everything follows from it", 0)
    workers: int = flag("processes that draw; 0: one per available core", 0)


@dataclass(frozen=True, kw_only=True)
class PhantomConfig(DrawingSettings, ContentSettings, OutputSettings):
    """Settings of ``python -m retfiner.data.phantoms``."""
