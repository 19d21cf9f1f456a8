"""Which tokens are hidden for masked language modelling and for generative modelling."""

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
        share: K as a share of the hidden tokens of all reports that were drawn for together; 1
            where ``input_ids`` holds all of them.
    """

    input_ids: Tensor
    positions: Tensor
    labels: Tensor
    share: float = 1.0


def mask_tokens(
    input_ids: Tensor,
    lengths: Sequence[int],
    probability: float,
    mask_token_id: int,
    vocab_size: int,
    generator: torch.Generator,
    first: int = 0,
    width: int | None = None,
    random_from: int = 0,
    redraw: bool = False,
) -> MaskedTokens:
    """Hide a share of each report's tokens; of those, 80 % become [MASK], 10 % a random token.

    The first position and padding are never hidden, [SEP] may be, and every report has at least one
    hidden token (the rule of the published method): the one with the smallest draw is hidden too;
    or, as in the published code, a report is drawn again until it has one (``redraw``). The ids of
    random tokens begin at ``random_from``. All rows are handled at once. What is hidden is decided
    on the CPU, where the lengths are known: nothing waits for the device, and every device hides
    the same tokens.

    Where several processes share a batch, each draws for the whole of it and keeps its own rows:
    the same tokens are hidden however many processes there are.

    ``lengths`` are the tokens of all reports, padding not included, at least 2 each. ``first`` is
    the place among them of the first row of ``input_ids``, (B, L), and ``width`` what all of them
    together are padded to, by default L. The generator is one of the CPU's.

    Raises:
        ValueError: If ``probability`` is not in (0, 1].
    """
    if not 0 < probability <= 1:
        raise ValueError(f"probability must be in (0, 1], got {probability}")
    rows, length = input_ids.shape
    choose = _choose_again if redraw else _choose
    everywhere = choose(lengths, width or length, probability, generator)
    total = int(everywhere.sum())
    fate = torch.rand(total, generator=generator)
    random_ids = torch.randint(random_from, vocab_size, (total,), generator=generator)

    hidden = everywhere[first : first + rows, :length]
    positions = hidden.flatten().nonzero().squeeze(1)
    before = int(everywhere[:first].sum())
    own = slice(before, before + len(positions))
    fate, random_ids = fate[own], random_ids[own]
    positions, fate, random_ids = (
        send(drawn, input_ids.device) for drawn in (positions, fate, random_ids)
    )
    labels = input_ids.flatten()[positions]
    shown = torch.where(fate < 0.8, mask_token_id, labels)
    shown = torch.where(fate >= 0.9, random_ids, shown)
    masked = input_ids.flatten().scatter(0, positions, shown).view_as(input_ids)
    return MaskedTokens(masked, positions, labels, len(positions) / total)


def _choose(
    lengths: Sequence[int], width: int, probability: float, generator: torch.Generator
) -> Tensor:
    """Return (B, L), true where a token is hidden."""
    chance = torch.rand((len(lengths), width), generator=generator)
    eligible = _eligible(lengths, width)
    chance = chance.masked_fill(~eligible, 2.0)  # above every probability: never hidden
    hidden = chance < probability
    # The eligible token with the smallest draw is hidden in any case: at least one a report.
    return hidden.scatter_(1, chance.argmin(1, keepdim=True), True) & eligible


def _choose_again(
    lengths: Sequence[int], width: int, probability: float, generator: torch.Generator
) -> Tensor:
    """Return what :func:`_choose` does where reports are drawn again until they hide a token.

    That is the distribution of independent draws given that one of them hides its token: the first
    to be hidden among n is the k-th with probability p (1 - p)^(k - 1) / (1 - (1 - p)^n), the
    geometric distribution cut at n, and those after it are as independent as ever.
    """
    chance = torch.rand((len(lengths), width), generator=generator)
    draw = torch.rand((len(lengths), 1), generator=generator, dtype=torch.float64)
    count = torch.tensor(lengths, dtype=torch.float64)[:, None] - 1
    log_kept = torch.log1p(torch.tensor(-probability, dtype=torch.float64))
    skipped = (torch.log1p(draw * torch.expm1(count * log_kept)) / log_kept).floor()
    first = 1 + torch.minimum(skipped, count - 1)  # rounding may reach the count itself
    column = torch.arange(width)
    hidden = (column == first) | (column > first) & (chance < probability)
    return hidden & _eligible(lengths, width)


def _eligible(lengths: Sequence[int], width: int) -> Tensor:
    """Return (B, L), true for tokens that may be hidden: neither the first nor padding."""
    column = torch.arange(width)
    return (column > 0) & (column < torch.tensor(lengths)[:, None])
