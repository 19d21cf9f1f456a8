"""Masked language modelling (MLM) over the image."""

from __future__ import annotations

import torch
from torch import Tensor

from retfiner.losses.masked import hide, masked_prediction, word_counts
from retfiner.model import Batch, Encoded, RetFiner


class MaskedLanguageModelling:
    """Fill in hidden words from the rest of the report and the image (BERT, ALBEF).

    Args:
        probability: Share of the words hidden, 0.15 as published.
    """

    uses_similarity = False
    uses_fusion = True
    trains_similarity = False
    predicts_tokens = True

    def __init__(self, probability: float = 0.15) -> None:
        self.probability = probability

    def guesses(self, model: RetFiner, batch: Batch, generator: torch.Generator) -> Tensor:
        """Count the hidden words; see :class:`retfiner.losses.base.Loss`."""
        return word_counts(model, hide(model, batch, self.probability, generator))

    def __call__(
        self, model: RetFiner, batch: Batch, encoded: Encoded, generator: torch.Generator
    ) -> Tensor:
        """Hide words and return the loss; see :class:`retfiner.losses.base.Loss`."""
        masked = hide(model, batch, self.probability, generator)
        return masked_prediction(model, batch, encoded, masked, causal=False)
