"""Every setting of ``python -m retfiner.data.phantoms``: one field, one flag."""

from __future__ import annotations

from dataclasses import dataclass

from retfiner.common.cli import flag
from retfiner.data.phantoms.optics import DEFAULT_SIZE


@dataclass(frozen=True)
class PhantomConfig:
    """Settings of ``python -m retfiner.data.phantoms``."""

    output: str = flag(
        "folder to write to; a complete one of the same settings is reused", metavar="PATH"
    )
    patients: int = flag("patients among the image-report pairs, about 3.5 scans each", 430)
    train: int = flag("training images of each probing task", 160)
    val: int = flag("validation images of each probing task", 80)
    test: int = flag("test images of each probing task", 160)
    height: int = flag("height of a B-scan in pixels", DEFAULT_SIZE[0])
    width: int = flag("width of a B-scan in pixels", DEFAULT_SIZE[1])
    seed: int = flag("everything follows from it", 0)
    workers: int = flag("processes that draw; 0: one per available core", 0)
    preview: str = flag(
        "also write a contact sheet of all findings to this PNG file", "", metavar="PATH"
    )
