"""Several readings of a batch's reports, laid out as one pass of the text encoder.

MLM, GM and ITM all read the batch's reports over its images. One by one, each would load every
weight anew, and its backward pass would add another gradient of every weight to those before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from retfiner.text.packing import Packing, packing_of


class Reading(NamedTuple):
    """B texts to be read, each over an image.

    Attributes:
        input_ids: (B, L) token ids.
        attention_mask: (B, L), 1 for a token and 0 for padding.
        lengths: B counts of tokens, on the CPU; None where only the device knows them, and padding
            is read like tokens.
        causal: Whether a token sees only itself and the tokens before it (GM).
        image_index: (B,) which image each text is read over; by default text i over image i.
    """

    input_ids: Tensor
    attention_mask: Tensor
    lengths: Sequence[int] | None = None
    causal: bool = False
    image_index: Tensor | None = None

    def of(self, rows: slice) -> Reading:
        """Take some of the texts."""
        return Reading(
            self.input_ids[rows],
            self.attention_mask[rows],
            None if self.lengths is None else self.lengths[rows],
            self.causal,
            None if self.image_index is None else self.image_index[rows],
        )


class Layout(NamedTuple):
    """Readings of B texts each as N rows of one pass.

    Attributes:
        input_ids: (N, L) token ids, padded to the longest reading.
        mask: (N, 1, 1 or L, L), true where a query may look at a key.
        packing: Where the words are; None if there is no padding.
        rows: How many rows are read over the batch's images in their order, if any; then, of each
            reading that says which images it wants, how many.
        places: Of each reading, its place among those that :meth:`separate` finds.
    """

    input_ids: Tensor
    mask: Tensor
    packing: Packing | None
    rows: list[int]
    places: list[int]

    def separate(self, states: Tensor) -> list[Tensor]:
        """Give each reading its part of (N, L, H) states, (B, L, H)."""
        pairs = len(states) // len(self.places)
        found: list[Tensor] = []
        for rows in states.split(self.rows):
            found += rows.unflatten(0, (pairs, -1)).unbind(1)
        return [found[place] for place in self.places]


def lay_out(readings: Sequence[Reading]) -> Layout:
    """Lay readings of equally many texts side by side.

    The texts that are read over the same image lie in a row: its keys need not be copied for each.
    """
    ordered = sorted(range(len(readings)), key=lambda n: readings[n].image_index is not None)
    sequence = [readings[number] for number in ordered]
    over_own = sum(reading.image_index is None for reading in sequence)

    def side_by_side(parts: list[Tensor]) -> Tensor:
        own = [torch.stack(parts[:over_own], 1).flatten(0, 1)] if over_own else []
        return torch.cat(own + parts[over_own:])

    pairs, length = len(sequence[0].input_ids), max(r.input_ids.shape[1] for r in sequence)
    ids = side_by_side([_widen(reading.input_ids, length) for reading in sequence])
    queries = length if any(reading.causal for reading in sequence) else 1
    masks = [attendable(_widen(r.attention_mask, length), r.causal) for r in sequence]
    lengths = side_by_side(
        [
            torch.full((pairs,), length) if r.lengths is None else torch.tensor(r.lengths)
            for r in sequence
        ]
    )
    return Layout(
        ids,
        side_by_side([mask.expand(-1, -1, queries, -1) for mask in masks]),
        packing_of(lengths.tolist(), length, ids.device),
        [over_own * pairs] * bool(over_own) + [pairs] * (len(sequence) - over_own),
        [ordered.index(number) for number in range(len(readings))],
    )


def attendable(attention_mask: Tensor, causal: bool) -> Tensor:
    """Turn (B, L), 1 for a token, into (B, 1, 1 or L, L): where a query may look at a key."""
    keys = attention_mask.bool()[:, None, None, :]
    if not causal:
        return keys
    length = attention_mask.shape[1]
    return keys & torch.ones(length, length, dtype=torch.bool, device=keys.device).tril()


def _widen(values: Tensor, length: int) -> Tensor:
    """Pad (B, L) with zeros to ``length``."""
    return F.pad(values, (0, length - values.shape[1]))
