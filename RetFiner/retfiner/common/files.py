"""Files are written whole or not at all, by one process at a time, and known by what they hold."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retfiner.common.errors import InputError
from retfiner.common.progress import progress

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from torch import Tensor

_LARGE = 1 << 28
"""Bytes below which hashing is done before anybody wonders."""
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})
"""What network storage answers whose locks are not set up; filelock itself knows ENOSYS."""


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; move it into place only when the block succeeds.

    A reader sees the old file or the new one, never half of one, also when the process is killed
    or the disk is full. The folder is created, and both paths have the same suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; ours are ordinary ones
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_torch(content: Any, path: Path) -> None:
    """Write ``content`` by ``torch.save``, the same content always as the same bytes.

    Given a path, ``torch.save`` writes the file's own name into it: a file written by way of
    :func:`whole_file` would differ from run to run, and so would every fingerprint of it.
    """
    import torch  # a second or two that those who only read text need not wait for

    with path.open("wb") as file:
        torch.save(content, file)


def save_safetensors(
    tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]
) -> None:
    """Write tensors as safetensors, the same content always as the same bytes.

    The library puts the metadata down in the order of a hash map, another one in each process.
    """
    from safetensors.torch import save_file

    save_file(dict(tensors), path, dict(metadata))
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise ValueError(f"the header of {path} has no room for itself in another order")
        file.seek(8)
        file.write(text.ljust(length))  # spaces at the end are part of the format


def file_sha256(path: Path) -> str:
    """Hash a file's bytes, a piece at a time; of a large one, show how far it has come."""
    digest, size = hashlib.sha256(), path.stat().st_size
    shown = progress(f"hashing {path.name}", size, "B") if size >= _LARGE else nullcontext()
    with path.open("rb") as file, shown as bar:
        while block := file.read(1 << 20):
            digest.update(block)
            if bar is not None:
                bar.update(len(block))
    return digest.hexdigest()


def lock_file(path: Path, timeout: float, held: Callable[[], InputError]) -> BaseFileLock:
    """Take a lock, which the operating system lets go of when the process ends, however it ends.

    Storage without locks gets a file that says who holds it; one of a process of this machine that
    is gone does not count.

    Args:
        path: File of the lock; ``-soft`` is added to it where the storage refuses locks.
        timeout: Seconds to wait for a process that holds it.
        held: Makes the error if it still does then.

    Raises:
        InputError: If another process holds it.
    """
    from filelock import FileLock, SoftFileLock, Timeout  # which linear probing does not need

    lock: BaseFileLock = FileLock(path)
    try:
        try:
            lock.acquire(timeout=timeout)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            lock = SoftFileLock(path.with_name(f"{path.name}-soft"))
            lock.acquire(timeout=timeout)
    except Timeout as error:
        told = held()
        if isinstance(lock, SoftFileLock):  # of a process on another machine, which may be gone
            told = told.changed(remedy=f"{told.remedy}; if it is gone, remove {error.lock_file}")
        raise told from error
    return lock
