"""Files on servers: ``http://``, ``s3://`` and whatever else fsspec knows, read by ranges of bytes.

A URL comes as a path, in which its two slashes are one; :func:`url_of` tells.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from retfiner.common.errors import InputError, Stopped
from retfiner.common.progress import progress

PAUSES = (0.5, 2.0, 8.0)
"""Seconds before a server that did not answer is asked again."""
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.IGNORECASE)  # a drive has one letter


def url_of(path: Path) -> str | None:
    """Return the URL that a path stands for, or None for a file of this machine."""
    found = _URL.fullmatch(str(path))
    return None if found is None or found[1] == "file" else f"{found[1]}://{found[2]}"


def local_path(path: Path) -> Path:
    """Return the path of ``file:///data/pairs.csv``, and every other one as it is."""
    return Path(re.sub("^file:/+", "/", str(path)))


def read_range(path: Path, begin: int, size: int) -> bytes:
    """Read ``size`` bytes of a file, or as many as there are; of one on a server, no others.

    Raises:
        InputError: If a server does not answer, or only with the whole file.
    """
    url = url_of(path)
    if url is None:
        with path.open("rb") as file:
            file.seek(begin)
            return file.read(size)
    content: bytes = _ask(url, "cat_file", begin, begin + size)
    if len(content) > size:
        raise InputError(
            f"the server of {url} gives whole files only",
            got=f"{len(content):,} bytes for a range of {size:,}",
            expected="an answer to range requests, as nginx, Apache and S3 give",
            remedy="serve the folder by one of these, or copy it to this machine",
        )
    return content


def size_of(path: Path) -> int:
    """Return the size of a file in bytes; a server is asked once.

    Raises:
        InputError: If a server does not answer. What the disk says goes through.
    """
    url = url_of(path)
    return path.stat().st_size if url is None else _size_on_server(url)


@cache
def _size_on_server(url: str) -> int:
    return int(_ask(url, "size"))


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Yield a copy of a file on a server for the length of the block; another one as it is.

    Raises:
        InputError: If the server does not give it.
    """
    url = url_of(path)
    if url is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="retfiner-") as folder:
        with progress(f"downloading {path.name}"):
            _ask(url, "get_file", str(Path(folder) / path.name))
        yield Path(folder) / path.name


def _ask(url: str, method: str, *arguments: object) -> Any:
    """Ask a server by a method of fsspec's, again where it does not answer."""
    from fsspec.core import url_to_fs

    for pause in (*PAUSES, None):
        try:
            return getattr(url_to_fs(url)[0], method)(url, *arguments)
        except Stopped:
            raise
        except Exception as error:  # of whichever library asks
            if pause is None or isinstance(error, FileNotFoundError | ImportError):
                raise InputError(
                    f"{url} cannot be read",
                    got=str(error) or type(error).__name__,
                    expected="a file that the server gives without asking who wants it",
                ) from error
            time.sleep(pause)
    raise AssertionError
