"""Errors about image files, in one wording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retfiner.common.errors import InputError, Stopped


def unusable(path: Path, found: object, expected: object, remedy: str | None = None) -> InputError:
    """Make the error for an image file that cannot be used."""
    return InputError(
        f"The image {path} cannot be used", got=found, expected=expected, remedy=remedy
    )


@contextmanager
def translated(path: Path, expected: str = "an intact file") -> Iterator[None]:
    """Turn what a decoder raises for a damaged file, of whatever kind, into one error of ours.

    Raises:
        InputError: That names the file, and what was expected of it.
    """
    try:
        yield
    except (InputError, Stopped):
        raise
    except MemoryError as error:
        raise unusable(
            path,
            "not enough memory to read it",
            "a file that fits into memory",
            "fewer processes with --num_workers, or a smaller file",
        ) from error
    except Exception as error:
        raise unusable(path, str(error) or type(error).__name__, expected) from error
