"""Memory that does not suffice."""

from __future__ import annotations

import errno

import pytest
import torch

from retfiner.common.errors import InputError
from retfiner.common.faults import TRAINING_MEMORY, explained_faults
from retfiner.refine import refine
from tests.helpers.bounded import bounded
from tests.helpers.refinement import make_material, settings

KNOWN = {
    "CUDA": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "memory"),
    "CPU": (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        "memory",
    ),
    "cuBLAS": (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "memory"),
    "NumPy": (MemoryError("Unable to allocate 4.00 GiB for an array"), "memory"),
    "Python": (MemoryError(), "memory"),
    "a worker's": (
        MemoryError("Caught MemoryError in DataLoader worker process 0."),
        "memory",
    ),
    "fork": (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
    "shared": (
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible"),
        "shared memory",
    ),
    "a small container": (
        RuntimeError(
            "Caught RuntimeError in DataLoader worker process 0.\nRuntimeError: unable to allocate "
            "shared memory(shm) for file </torch_7_8_1>: No space left on device (28)"
        ),
        "shared memory",
    ),
    "killed": (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "outside"),
    "lost": (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "outside"),
    "open files": (OSError(errno.EMFILE, "Too many open files"), "too many files"),
    "open files, torch's": (
        RuntimeError("Too many open files. Communication with the workers is no longer possible."),
        "too many files",
    ),
    "open files, a batch's": (RuntimeError("received 0 items of ancdata"), "too many files"),
    "a peer": (
        RuntimeError("another process of this run has ended or does not"),
        "another process",
    ),
    "a peer, gloo's": (
        RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error"),
        "another process",
    ),
    "a peer, NCCL's": (
        RuntimeError("ncclRemoteError: remote process exited or there was a network error"),
        "another process",
    ),
    "full": (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk is full"),
    "torch.save, later": (
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 45120 vs 45008"),
        "disk is full",
    ),
    "torch.save": (RuntimeError("PytorchStreamWriter failed writing file data/1"), "disk is full"),
    "read-only": (
        OSError(errno.EROFS, "Read-only file system", "models/a"),
        "models/a cannot be",
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_is_explained(name):
    error, words = KNOWN[name]
    with pytest.raises(InputError, match=words) as caught, explained_faults():
        raise error
    assert "remedy:" in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not fit"), OSError(errno.ENOENT, "x"), KeyError("memory")]
)
def test_a_mistake_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error)) as caught, explained_faults():
        raise error
    assert caught.value is error


@pytest.mark.slow
def test_a_run_whose_memory_ends_names_what_needs_less(tmp_path):
    material = make_material(tmp_path / "material", pairs=96, patients=12)
    config = settings(material, tmp_path / "models", batch_size=64, image_size=512)
    outcome = bounded(lambda: refine(config), megabytes=400, seconds=100)
    assert outcome.kind == "InputError", outcome
    assert "there is not enough memory" in outcome.text
    assert TRAINING_MEMORY in outcome.text
    for flag in ("--batch_size", "--gradient_checkpointing", "--precision", "--num_workers"):
        assert flag in outcome.text
