"""Files on servers: ``http://``, ``s3://`` and whatever else fsspec knows, read by ranges of bytes.

A URL comes as a path, in which its two slashes are one; :func:`url_of` tells.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from retfiner.common.errors import InputError, Stopped
from retfiner.common.progress import progress

Answer = TypeVar("Answer")

ATTEMPTS, PAUSE = 4, 0.5
"""How often a server is asked, and seconds between, twice as many each time."""
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.IGNORECASE)  # a drive has one letter


def url_of(path: Path) -> str | None:
    """Return the URL that a path stands for, or None for a file of this machine."""
    found = _URL.fullmatch(str(path))
    return None if found is None or found[1] == "file" else f"{found[1]}://{found[2]}"


def local_path(path: Path) -> Path:
    """Return the path of ``file:///data/pairs.csv``, and every other one as it is."""
    found = _URL.fullmatch(str(path))
    return Path(f"/{found[2]}") if found is not None and found[1] == "file" else path


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
    content = _asked(url, lambda: _system(url).cat_file(url, begin, begin + size))
    if len(content) > size:
        raise InputError(
            f"the server of {url} gives whole files only",
            got=f"{len(content):,} bytes for a range of {size:,}",
            expected="an answer to range requests (RFC 9110), as nginx, Apache and S3 give",
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
    return int(_asked(url, lambda: _system(url).size(url)))


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Yield a copy, for the length of the block, of a file on a server; others as they are.

    Raises:
        InputError: If the server does not give it.
    """
    url = url_of(path)
    if url is None:
        yield local_path(path)
        return
    with tempfile.TemporaryDirectory(prefix="retfiner-") as folder:
        copy = Path(folder) / path.name
        with progress(f"downloading {path.name}"):
            _asked(url, lambda: _system(url).get_file(url, str(copy)))
        yield copy


def _system(url: str) -> Any:
    from fsspec.core import url_to_fs

    return url_to_fs(url)[0]


def _asked(url: str, ask: Callable[[], Answer]) -> Answer:
    """Ask a server, several times where the connection breaks."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except (InputError, Stopped):
            raise
        except ImportError as error:  # s3fs, gcsfs
            raise InputError(f"{url} needs a package", got=error) from error
        except Exception as error:  # of whichever library asks
            if isinstance(error, FileNotFoundError) or attempt == ATTEMPTS:
                raise InputError(
                    f"{url} cannot be read",
                    got=str(error) or type(error).__name__,
                    expected="a file that the server gives without asking who wants it",
                ) from error
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError
