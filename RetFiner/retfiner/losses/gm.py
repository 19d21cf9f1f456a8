"""Generative modelling (GM): write the report from the image."""

from __future__ import annotations

import torch
from torch import Tensor

from retfiner.batch import Batch
from retfiner.losses.masked import masked_prediction
from retfiner.model import Encoded, RetFiner
from retfiner.text.masking import mask_tokens


class GenerativeModelling:
    """Fill in hidden words from the words before them and the image (RetFiner).

    Args:
        probability: Share of the words hidden, 0.6 as published.
    """

    uses_similarity = False
    uses_fusion = True

    def __init__(self, probability: float = 0.6) -> None:
        self.probability = probability

    def __call__(
        self, model: RetFiner, batch: Batch, encoded: Encoded, generator: torch.Generator
    ) -> Tensor:
        """Hide words and return the loss; see :class:`retfiner.losses.base.Loss`."""
        masked = mask_tokens(
            batch.input_ids,
            batch.lengths,
            self.probability,
            model.mask_token_id,
            model.vocab_size,
            generator,
        )
        return masked_prediction(model, batch, encoded, masked, causal=True)
