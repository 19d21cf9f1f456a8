"""Where a data set of the user's own lies: ``path/to/file.py:Class``, without torch."""

from __future__ import annotations

from pathlib import Path

from retfiner.common.errors import InputError


def split_reference(reference: str) -> tuple[Path, str]:
    """Return the file and the class's name.

    Raises:
        InputError: If the reference has another form, or there is no such file.
    """
    file_name, separator, class_name = reference.rpartition(":")
    path = Path(file_name)
    if not separator or path.suffix != ".py" or not class_name.isidentifier():
        raise InputError(
            "--dataset cannot be understood", got=reference, expected="path/to/file.py:Class"
        )
    if not path.is_file():
        raise InputError(f"there is no file {path}", remedy="check the path before the colon")
    return path, class_name
