"""Batches of processes that read images arrive, or the run hears why not."""

from __future__ import annotations

import os

import pytest
import torch
from torch.utils.data import DataLoader

from retfiner.common.errors import InputError
from retfiner.common.faults import explained_faults
from retfiner.common.processes import handing_over, in_processes, start_reader
from tests.helpers.bounded import bounded
from tests.helpers.disk import no_file_larger_than


def read(collate, workers=1):
    loader = DataLoader(
        range(4),
        batch_size=2,
        collate_fn=handing_over(collate),
        num_workers=workers,
        worker_init_fn=start_reader,
        multiprocessing_context="fork" if workers else None,
    )
    return list(loader)


def as_tensors(items):
    return [(torch.full((3, 200, 200), float(item)), str(item)) for item in items]


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_handed_over_is_what_was_read(workers):
    batches = read(as_tensors, workers)
    assert [[name for _, name in batch] for batch in batches] == [["0", "1"], ["2", "3"]]
    for batch in batches:
        for image, name in batch:
            assert torch.equal(image, torch.full((3, 200, 200), float(name)))
            assert image.is_shared() == bool(workers)


def test_a_batch_that_finds_no_shared_memory_is_told_and_not_awaited():
    """Memory that processes share is files, which a limit makes too large."""

    def fails():
        with explained_faults(), no_file_larger_than(50_000):
            read(as_tensors)

    found = bounded(fails, seconds=60)
    assert found.kind == InputError.__name__, found
    assert "too little shared memory" in found.text
    assert "got:      RuntimeError: unable to" in found.text
    assert "--shm-size" in found.text


def test_a_process_whose_batch_cannot_be_sent_ends(capfd):
    def fails():
        with explained_faults():
            read(lambda items: [lambda: items])  # which cannot be pickled

    found = bounded(fails, seconds=60)
    assert found.kind == InputError.__name__, found
    assert "a process that reads images was ended" in found.text
    assert "cannot hand over a batch: " in capfd.readouterr().err


def double_or_end(item):
    if item is None:
        os._exit(9)
    return 2 * item


@pytest.mark.parametrize("start", ["spawn", "fork"])
def test_work_comes_back_in_order_and_a_process_that_is_ended_is_said(start):
    found = in_processes(double_or_end, range(7), 3, remedy="fewer", start=start, at_once=2)
    assert list(found) == [0, 2, 4, 6, 8, 10, 12]
    with pytest.raises(InputError, match=r"(?s)ended from outside.*fewer"):
        list(in_processes(double_or_end, [1, None, 2], 2, remedy="fewer", start=start))
