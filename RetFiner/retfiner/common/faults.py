"""A machine's faults in plain words: a full disk, too little memory, a worker that was killed.

What is not recognised goes through as it is: a mistake of ours shall show its traceback.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from retfiner.common.errors import InputError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR})
_FULL_WORDS = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|PytorchStreamWriter failed writing"
    r"|inline_container.* unexpected pos|iostream error"  # how torch.save says it
)
_MEMORY_WORDS = re.compile(
    r"out of memory|not enough memory|can't allocate memory|Cannot allocate memory"
    r"|Unable to allocate|ALLOC_FAILED"
)
_SHARED_WORDS = re.compile(
    r"Bus error|out of shared memory"
    r"|unable to (?:mmap|open shared memory|allocate shared memory|[a-z ]+ file </torch_)"
)
_OPEN = frozenset({errno.EMFILE, errno.ENFILE})
_OPEN_WORDS = re.compile(r"Too many open files|received \d+ items of ancdata")
_PEER_WORDS = re.compile(
    r"another process of this run has ended|/gloo/transport/|remote process exited"
)
_WORKER_WORDS = re.compile(r"DataLoader worker \(pid\S* [\d, ]+\) .*")

DISK = "make room on the disk, or give a folder on another one; what was complete is still there"
MEMORY = "a machine or GPU with more memory, or fewer processes with --num_workers"
TRAINING_MEMORY = (
    "a smaller --batch_size (--contrast_batch keeps what is contrasted), --gradient_checkpointing, "
    "--precision bf16-mixed, or, where it is the computer's memory that is short, fewer processes "
    "with --num_workers"
)
EVALUATION_MEMORY = (
    "a smaller --batch_size, or, where it is the computer's memory that is short, fewer processes "
    "with --num_workers"
)
PROBING_MEMORY = (
    "a smaller --inference_batch_size, fewer --views, or, where it is the computer's memory that "
    "is short, fewer processes with --num_workers"
)


@contextmanager
def explained_faults(memory: str = MEMORY, disk: str = DISK) -> Iterator[None]:
    """Turn the faults of a machine into errors that say what to do; also usable as a decorator.

    ``memory`` and ``disk`` are what helps where there is too little of them.

    Raises:
        InputError: If the block fails for want of memory, disk or rights, or loses a worker.
    """
    try:
        yield
    except (OSError, MemoryError, RuntimeError) as error:
        explained = _explain(error, memory, disk)
        if explained is None:
            raise
        raise explained from error


def is_disk_full(error: OSError | RuntimeError) -> bool:
    """Say whether an error means a full disk, in whichever words."""
    code = error.errno if isinstance(error, OSError) else None
    return code in _FULL or _FULL_WORDS.search(str(error)) is not None


def little_shared_memory(got: str) -> InputError:
    """Say that processes that read images cannot hand over what they read."""
    return InputError(
        "the processes that read images have too little shared memory",
        got=got,
        expected="room in /dev/shm for a few batches",
        remedy="--num_workers 0, or more shared memory (docker run --shm-size 8g)",
    )


def lost_worker(got: str) -> InputError:
    """Say that a process that reads images is gone; ``got`` tells how."""
    return InputError(
        "a process that reads images was ended from outside",
        got=got,
        expected="that it works until the run ends",
        remedy="if it happens again, memory is the usual reason: fewer processes with "
        "--num_workers, or none with 0",
    )


def _explain(error: Exception, memory: str, disk: str) -> InputError | None:
    """Say what a fault means; None where it is not known."""
    text = str(error)
    got = (text or type(error).__name__).strip().splitlines()[0]
    code = error.errno if isinstance(error, OSError) else None
    of_workers = _explain_workers(text, code, got)
    if of_workers is not None:
        return of_workers
    if isinstance(error, OSError | RuntimeError) and is_disk_full(error):
        return InputError("the disk is full", got=got, remedy=disk)
    if isinstance(error, RuntimeError) and _PEER_WORDS.search(text):
        return InputError(
            "another process of this run has ended, and so does this one",
            got=got,
            expected="that all of a run's processes work until it ends",
            remedy="see what that one said, or whether it was killed; then go on with --resume",
        )
    if isinstance(error, MemoryError) or code == errno.ENOMEM or _MEMORY_WORDS.search(text):
        return InputError("there is not enough memory", got=got, remedy=memory)
    if code in _FORBIDDEN and isinstance(error, OSError) and error.filename is not None:
        return InputError(
            f"{error.filename} cannot be read or written",
            got=error.strerror,
            remedy="check its permissions, or give another folder",
        )
    return None


def _explain_workers(text: str, code: int | None, got: str) -> InputError | None:
    """Say what went wrong between processes that read images and the one that trains."""
    if _SHARED_WORDS.search(text):
        lines = text.splitlines()
        return little_shared_memory(next(line for line in lines if _SHARED_WORDS.search(line)))
    lost = _WORKER_WORDS.search(text)
    if lost:
        return lost_worker(lost[0])
    if code in _OPEN or _OPEN_WORDS.search(text):
        return InputError(
            "too many files are open",
            got=got,
            expected="a limit (ulimit -n) of some thousands: processes that read images hand each "
            "tensor over as a file",
            remedy="ulimit -n 4096 in the shell or the job's script, or fewer --num_workers",
        )
    return None
