"""One process at a time, also where the storage knows no locks."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from retfiner.common.errors import InputError

_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})
"""What network storage answers whose locks are not set up; filelock itself knows ENOSYS."""


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
