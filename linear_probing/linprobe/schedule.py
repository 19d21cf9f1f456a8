"""The protocol's learning rate, batch size and number of views: pure functions."""

from __future__ import annotations

import math


def learning_rate_at(
    epoch: float, *, peak: float, lowest: float, warmup: int, epochs: int
) -> float:
    """Give the learning rate: linear warm-up from 0, then a half-cosine down to the lowest.

    ``epoch`` counts those done so far, with the current one's fraction; of ``epochs`` in all,
    ``warmup`` are warm-up.
    """
    if epoch < warmup:
        return peak * epoch / warmup
    done = (epoch - warmup) / (epochs - warmup)
    return lowest + (peak - lowest) * 0.5 * (1.0 + math.cos(math.pi * done))


def batch_size_of(n_images: int, largest: int = 64, share: float = 0.25) -> int:
    """Give the largest power of two <= ``share`` of the images, at most ``largest``, at least 1."""
    allowed = max(1, math.floor(share * n_images))
    return max(1, min(largest, 1 << (allowed.bit_length() - 1), n_images))


def views_of(n_images: int, wanted: int = 8192, least: int = 2, most: int = 8) -> int:
    """Give the number of stored views a training image: ``wanted`` pictures in all, within bounds.

    More than eight change nothing beyond noise on the features of trained backbones, and cost most
    of the time: docs/probing_and_data_sets.md has the measurements.
    """
    return min(most, max(least, math.ceil(wanted / n_images)))
