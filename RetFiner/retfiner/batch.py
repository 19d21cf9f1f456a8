"""What one step sees."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Joined(NamedTuple):
    """The reports of the batch that all processes of a run see together, in the order of ranks.

    Attributes:
        input_ids: (W, L) WordPiece ids of all W reports, padded to the longest.
        attention_mask: (W, L), 1 for a token and 0 for padding.
        lengths: W counts of tokens, on the CPU.
        report_ids: (W,), equal for identical reports.
        sizes: How many of the pairs each process has.
        rank: Which process this is.
    """

    input_ids: Tensor
    attention_mask: Tensor
    lengths: tuple[int, ...]
    report_ids: Tensor
    sizes: tuple[int, ...]
    rank: int

    @property
    def first(self) -> int:
        """Place of this process's first pair among all."""
        return sum(self.sizes[: self.rank])

    @property
    def rows(self) -> slice:
        """Places of this process's pairs among all."""
        return slice(self.first, self.first + self.sizes[self.rank])


class Batch(NamedTuple):
    """A batch of image-report pairs.

    Attributes:
        images: (B, C, H, W), normalised as the backbone asks.
        input_ids: (B, L) WordPiece ids, padded to the longest report.
        attention_mask: (B, L), 1 for a token and 0 for padding.
        lengths: B counts of tokens, padding not included, on the CPU whatever the device is.
        report_ids: (B,) int64, equal for reports that are identical word for word.
        rows: (B,) int64, the number each pair is known by (its row in the CSV), for messages.
        joined: What other processes hold, where several train together; None for one alone.
    """

    images: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    lengths: tuple[int, ...]
    report_ids: Tensor
    rows: Tensor
    joined: Joined | None = None

    @property
    def total(self) -> int:
        """Number of pairs, those of other processes included."""
        return len(self.images) if self.joined is None else sum(self.joined.sizes)

    @property
    def weight(self) -> float:
        """Factor for a mean over this process's pairs: processes' mean is then that of all pairs.

        Data-parallel training averages gradients over processes, whose batches may differ in size.
        """
        if self.joined is None:
            return 1.0
        sizes = self.joined.sizes
        return sizes[self.joined.rank] * len(sizes) / sum(sizes)


def join_reports(parts: Sequence[Batch], rank: int) -> Joined:
    """Put the reports of all processes together.

    Args:
        parts: Each process's batch, in the order of ranks; images are not looked at.
        rank: Which process this is.
    """
    width = max(part.input_ids.shape[1] for part in parts)

    def padded(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([F.pad(t, (0, width - t.shape[1])) for t in tensors])

    return Joined(
        input_ids=padded([part.input_ids for part in parts]),
        attention_mask=padded([part.attention_mask for part in parts]),
        lengths=tuple(length for part in parts for length in part.lengths),
        report_ids=torch.cat([part.report_ids for part in parts]),
        sizes=tuple(len(part.lengths) for part in parts),
        rank=rank,
    )


def normalise_report(report: str) -> str:
    """Bring a report into the form in which two are compared: case and white space do not count."""
    return " ".join(report.casefold().split())


def identify_reports(reports: Sequence[str]) -> Tensor:
    """Give identical reports the same number, in every process and on every machine.

    Args:
        reports: B reports.

    Returns:
        (B,) int64: 63 bits of a hash of each report.
    """
    return torch.tensor([_hash(report) for report in reports], dtype=torch.int64)


def _hash(report: str) -> int:
    digest = hashlib.blake2b(normalise_report(report).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
