"""The command line of the phantoms: ``python -m retfiner.data.phantoms --output DIR``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retfiner.common.cli import flag, parse
from retfiner.common.errors import run_entry_point
from retfiner.data.phantoms.generate import write_phantoms
from retfiner.data.phantoms.optics import DEFAULT_SIZE
from retfiner.data.phantoms.preview import contact_sheet


@dataclass(frozen=True)
class PhantomConfig:
    """The command line of ``python -m retfiner.data.phantoms``."""

    output: str = flag("folder to write to; a complete one of the same settings is reused")
    patients: int = flag("patients among the image-report pairs, about 3.5 scans each", 430)
    train: int = flag("training images of each probing task", 160)
    val: int = flag("validation images of each probing task", 80)
    test: int = flag("test images of each probing task", 160)
    height: int = flag("height of a B-scan in pixels", DEFAULT_SIZE[0])
    width: int = flag("width of a B-scan in pixels", DEFAULT_SIZE[1])
    seed: int = flag("everything follows from it", 0)
    workers: int = flag("processes that draw; 0: one per available core", 0)
    preview: str = flag("also write a contact sheet of all findings to this PNG file", "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write phantoms as the command line asks."""
    settings = parse(
        PhantomConfig, "Write OCT phantoms: B-scans with reports, and probing tasks", arguments
    )
    size = (settings.height, settings.width)
    images = (settings.train, settings.val, settings.test)
    folder = write_phantoms(
        settings.output,
        settings.patients,
        images,
        settings.seed,
        size=size,
        workers=settings.workers,
    )
    print(f"phantoms: {folder}")
    if settings.preview:
        print(f"preview:  {contact_sheet(settings.preview, settings.seed, size)}")


if __name__ == "__main__":
    run_entry_point(main)
