"""Reports of different lengths without their padding.

A report's padding is a third to two thirds of a batch. What works on each token alone (projections,
feed-forward layers, norms: nearly all of a BERT's work) sees the words of all reports in one row;
only attention, which mixes the tokens of a report, sees them report by report.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retfiner.common.devices import send


class Packing(NamedTuple):
    """Where the T words of N reports, padded to L, are: (T,) places among the N * L."""

    words: Tensor
    size: int
    length: int

    def pack(self, states: Tensor) -> Tensor:
        """Take the words: (N, L, H) to (T, H)."""
        return _Take.apply(states.flatten(0, 1), self.words)

    def unpack(self, states: Tensor) -> Tensor:
        """Put the words back in their places, zeros elsewhere: (T, H) to (N, L, H)."""
        padded = _Put.apply(states, self.words, self.size * self.length)
        return padded.unflatten(0, (self.size, self.length))


def _put(rows: Tensor, places: Tensor, size: int) -> Tensor:
    return rows.new_zeros(size, rows.shape[-1]).index_copy_(0, places, rows)


class _Take(torch.autograd.Function):
    """Rows at places, each of which comes once: torch's own gradient would add instead of copy."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = len(rows)
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        [places] = ctx.saved_tensors
        return _put(gradient, places, ctx.size), None


class _Put(torch.autograd.Function):
    """The reverse; torch's own ``index_copy`` would keep the rows, which it does not need."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(places)
        return _put(rows, places, size)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        [places] = ctx.saved_tensors
        return gradient.index_select(0, places), None, None


LEAST_ON_GPU = 0.5
"""Padding on a GPU, as a share of all places, from which on it is worth to leave it out.

There the arithmetic of half as many words more costs less than starting the kernels that pack: on
an H200, a step with a third of padding took 0.95 of the time unpacked (``benchmarks/README.md``).
"""


def packing_of(lengths: Sequence[int], length: int, device: torch.device) -> Packing | None:
    """Say where the words of N reports padded to ``length`` are; None if it is not worth it."""
    padding = 1 - sum(lengths) / (len(lengths) * length)
    if padding == 0 or (device.type == "cuda" and padding < LEAST_ON_GPU):
        return None
    # The lengths are on the CPU: nothing waits for the device.
    words = (torch.arange(length) < torch.tensor(lengths)[:, None]).flatten().nonzero().squeeze(1)
    return Packing(send(words, device), len(lengths), length)
