"""The command line of the phantoms: ``python -m retfiner.data.phantoms --output DIR``."""

from __future__ import annotations

from collections.abc import Sequence

from retfiner.common.errors import run_entry_point


def main(arguments: Sequence[str] | None = None) -> None:
    """Write phantoms as the command line asks."""
    from retfiner.common.cli import parse
    from retfiner.data.phantoms.config import PhantomConfig

    settings = parse(
        PhantomConfig, "Write OCT phantoms: B-scans with reports, and probing tasks", arguments
    )
    from retfiner.data.phantoms.generate import write_phantoms
    from retfiner.data.phantoms.preview import contact_sheet

    size = (settings.height, settings.width)
    images = (settings.train, settings.val, settings.test)
    folder = write_phantoms(
        settings.output,
        settings.patients,
        images,
        settings.seed,
        size=size,
        workers=settings.workers,
        exams=settings.exams,
    )
    print(f"phantoms: {folder}")
    if settings.preview:
        print(f"preview:  {contact_sheet(settings.preview, settings.seed, size)}")


if __name__ == "__main__":
    run_entry_point(main)
