"""What an objective is: it plans which texts are to be read over which images, and is answered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from retfiner.model import Batch, Encoded, RetFiner
from retfiner.text.reading import Reading


class Plan(NamedTuple):
    """What a loss wants read, and what it makes of that.

    Attributes:
        readings: Texts over images.
        answer: From the (B, L, H) states of each reading to the loss, a scalar.
    """

    readings: list[Reading]
    answer: Callable[[list[Tensor]], Tensor]

    def carry_out(self, model: RetFiner, batch: Batch, encoded: Encoded) -> Tensor:
        """Read and answer."""
        return self.answer(model.fuse(batch, encoded, self.readings))


class Loss(ABC):
    """A refinement objective: ``loss(model, batch, encoded, generator) -> scalar``.

    Attributes:
        uses_similarity: Whether it needs ``encoded.similarity``.
        uses_fusion: Whether it reads texts over images.
        trains_similarity: Whether gradients reach the contrastive heads and the temperature.
        predicts_tokens: Whether it scores the vocabulary.
    """

    uses_similarity: bool
    uses_fusion: bool
    trains_similarity: bool
    predicts_tokens: bool

    def __call__(
        self, model: RetFiner, batch: Batch, encoded: Encoded, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of a batch that ``model.encode`` encoded; see :meth:`plan`."""
        return self.plan(model, batch, encoded, generator).carry_out(model, batch, encoded)

    @abstractmethod
    def plan(
        self, model: RetFiner, batch: Batch, encoded: Encoded, generator: torch.Generator
    ) -> Plan:
        """Say what is to be read for the loss of a batch.

        Whatever the loss draws comes from ``generator``, one of the CPU's.
        """

    @abstractmethod
    def guesses(self, model: RetFiner, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return how often each answer is right in a batch: what guessing by frequency goes by.

        Of the model nothing but sizes is used; what is drawn is the same as for the loss.

        Returns:
            (answers,) counts. The entropy of their shares is what a model that knows nothing pays.
            Where a pair is asked several questions, (questions, answers): it pays for each.
        """


def losses_together(
    losses: Mapping[str, Loss],
    model: RetFiner,
    batch: Batch,
    encoded: Encoded,
    generators: Mapping[str, torch.Generator],
) -> dict[str, Tensor]:
    """Return the losses of a batch, with all that they want read in one pass of the text encoder.

    ``generators`` has one of the CPU's for each loss.
    """
    plans = {
        name: loss.plan(model, batch, encoded, generators[name]) for name, loss in losses.items()
    }
    readings = [reading for plan in plans.values() for reading in plan.readings]
    states = iter(model.fuse(batch, encoded, readings))
    return {
        name: plan.answer([next(states) for _ in plan.readings]) for name, plan in plans.items()
    }
