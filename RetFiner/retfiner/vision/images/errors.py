"""Errors about image files, in one wording."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retfiner.common.errors import InputError


def unusable(path: Path, found: object, expected: object, remedy: str | None = None) -> InputError:
    """Make the error for an image file that cannot be used.

    Args:
        path: The file.
        found: What was found in it.
        expected: What would have been right.
        remedy: What the user can do about it.
    """
    return InputError(
        f"The image {path} cannot be used", got=found, expected=expected, remedy=remedy
    )


@contextmanager
def translated(
    path: Path, errors: tuple[type[Exception], ...], expected: str = "an intact file"
) -> Iterator[None]:
    """Turn what a decoder raises for a damaged file into an InputError that names the file.

    Args:
        path: The file.
        errors: What the decoder may raise.
        expected: What the file should have been.

    Raises:
        InputError: If one of ``errors``, an InputError or a MemoryError is raised inside.
    """
    try:
        yield
    except InputError:  # a ValueError as well
        raise
    except MemoryError as error:
        raise unusable(
            path,
            "not enough memory to read it",
            "a file that fits into memory",
            "fewer processes with --num_workers, or a smaller file",
        ) from error
    except errors as error:
        found = str(error) or type(error).__name__
        raise unusable(path, found, expected) from error
