"""What every loss is."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from retfiner.model import Batch, Encoded, RetFiner


class Loss(Protocol):
    """A refinement objective: ``loss(model, batch, encoded, generator) -> scalar``.

    Attributes:
        uses_similarity: Whether it needs ``encoded.similarity``.
        uses_fusion: Whether it needs ``encoded.image``.
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
        """Return the loss of a batch.

        Args:
            model: The model, whose shared parts the loss reads.
            batch: The step's pairs.
            encoded: What ``model.encode`` made of them.
            generator: A CPU generator for whatever the loss draws.
        """
        ...

    def guesses(self, model: RetFiner, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return how often each answer is right in a batch: what guessing by frequency goes by.

        Args:
            model: The model, of which nothing but sizes is used.
            batch: The step's pairs.
            generator: As for the loss; the same draws.

        Returns:
            (answers,) counts. The entropy of their shares is what a model that knows nothing pays.
        """
        ...
