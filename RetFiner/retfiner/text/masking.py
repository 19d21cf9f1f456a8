"""Which tokens are hidden for masked language modelling and for generative modelling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from retfiner.common.devices import send


class MaskedTokens(NamedTuple):
    """Reports with hidden tokens.

    Attributes:
        input_ids: (B, L) ids with some hidden.
        positions: (K,) where the hidden tokens are, as indices into the flattened (B * L).
        labels: (K,) what they were.
    """

    input_ids: Tensor
    positions: Tensor
    labels: Tensor


def mask_tokens(
    input_ids: Tensor,
    lengths: Sequence[int],
    probability: float,
    mask_token_id: int,
    vocab_size: int,
    generator: torch.Generator,
) -> MaskedTokens:
    """Hide a share of each report's tokens; of those, 80 % become [MASK], 10 % a random token.

    The first position and padding are never hidden, [SEP] may be, and every report has at least one
    hidden token (the rule of the published method). All rows are handled at once. What is hidden is
    decided on the CPU, where the lengths are known: nothing waits for the device, and every device
    hides the same tokens.

    Args:
        input_ids: (B, L) token ids.
        lengths: B counts of tokens, padding not included, at least 2 each.
        probability: Chance of each token to be hidden: 0.15 for MLM and 0.6 for GM as published.
        mask_token_id: Id of [MASK].
        vocab_size: Number of WordPieces; random tokens are drawn from all of them.
        generator: A CPU generator.

    Raises:
        ValueError: If ``probability`` is not in (0, 1].
    """
    if not 0 < probability <= 1:
        raise ValueError(f"probability must be in (0, 1], got {probability}")
    hidden = _choose(lengths, input_ids.shape[1], probability, generator)
    positions = hidden.flatten().nonzero().squeeze(1)
    fate = torch.rand(len(positions), generator=generator)
    random_ids = torch.randint(vocab_size, (len(positions),), generator=generator)

    positions, fate, random_ids = (
        send(drawn, input_ids.device) for drawn in (positions, fate, random_ids)
    )
    labels = input_ids.flatten()[positions]
    shown = torch.where(fate < 0.8, mask_token_id, labels)
    shown = torch.where(fate >= 0.9, random_ids, shown)
    masked = input_ids.flatten().scatter(0, positions, shown).view_as(input_ids)
    return MaskedTokens(masked, positions, labels)


def _choose(
    lengths: Sequence[int], width: int, probability: float, generator: torch.Generator
) -> Tensor:
    """Return (B, L), true where a token is hidden."""
    chance = torch.rand((len(lengths), width), generator=generator)
    column = torch.arange(width)
    eligible = (column > 0) & (column < torch.tensor(lengths)[:, None])
    chance = chance.masked_fill(~eligible, 2.0)  # above every probability: never hidden
    hidden = chance < probability
    # The eligible token with the smallest draw is hidden in any case: at least one a report.
    return hidden.scatter_(1, chance.argmin(1, keepdim=True), True) & eligible
