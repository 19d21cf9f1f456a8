"""What one step sees."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """A batch of image-report pairs.

    Attributes:
        images: (B, C, H, W), normalised as the backbone asks.
        input_ids: (B, L) WordPiece ids, padded to the longest report.
        attention_mask: (B, L), 1 for a token and 0 for padding.
        lengths: B counts of tokens, padding not included, on the CPU whatever the device is.
        report_ids: (B,) int64, equal for reports that are identical word for word.
        rows: (B,) int64, the number each pair is known by (its row in the CSV), for messages.
    """

    images: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    lengths: tuple[int, ...]
    report_ids: Tensor
    rows: Tensor


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
