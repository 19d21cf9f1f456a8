"""Several processes that train together, on a CPU."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from retfiner.data.batch import join_reports
from retfiner.model import Batch, Groups
from retfiner.training.distributed.collectives import all_gather_rows


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _work(rank: int, size: int, port: int, function: Any, arguments: Any, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size,
        timeout=timedelta(seconds=60),
    )  # fmt: skip
    torch.save(function(rank, *arguments), folder / f"{rank}.pt")
    dist.destroy_process_group()


def together(
    size: int,
    folder: Path,
    function: Callable[..., Any],
    *arguments: Any,
    returning: Sequence[int] | None = None,
) -> list[Any]:
    """Call ``function(rank, *arguments)`` in processes that can talk; return what each returned.

    ``returning`` names those that return at all; by default all do.
    """
    arguments = (size, free_port(), function, arguments, folder)
    # Forked: a spawned process would import torch and transformers first, for ten seconds.
    mp.start_processes(_work, arguments, nprocs=size, start_method="fork")
    return [
        torch.load(folder / f"{rank}.pt", weights_only=False) for rank in returning or range(size)
    ]


def share_of(batch: Batch, sizes: list[int], rank: int) -> Batch:
    """Cut a process's part out of a batch, its reports padded to its own longest."""
    parts = []
    for number, size in enumerate(sizes):
        own = slice(sum(sizes[:number]), sum(sizes[:number]) + size)
        lengths = batch.lengths[own]
        images, groups = own, None
        if batch.groups is not None:
            held = batch.groups.sizes
            images = slice(sum(held[: own.start]), sum(held[: own.stop]))
            groups = Groups(held[own], batch.groups.marks[images])
        parts.append(
            Batch(
                images=batch.images[images],
                input_ids=batch.input_ids[own, : max(lengths)],
                attention_mask=batch.attention_mask[own, : max(lengths)],
                lengths=lengths,
                report_ids=batch.report_ids[own],
                image_ids=batch.image_ids[own],
                rows=batch.rows[own],
                groups=groups,
            )
        )
    joined = join_reports(parts, rank, lambda rows: all_gather_rows(rows, sizes))
    return parts[rank]._replace(joined=joined)
