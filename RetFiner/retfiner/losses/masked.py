"""What MLM and GM share: score hidden tokens of a report that is read over its image."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from retfiner.batch import Batch
from retfiner.model import Encoded, RetFiner
from retfiner.text.masking import MaskedTokens


def masked_prediction(
    model: RetFiner, batch: Batch, encoded: Encoded, masked: MaskedTokens, causal: bool
) -> Tensor:
    """Return the mean cross-entropy over the hidden positions.

    Args:
        model: The model.
        batch: The step's pairs.
        encoded: What ``model.encode`` made of them.
        masked: The batch's reports with hidden tokens.
        causal: Whether a token sees only itself and the tokens before it.
    """
    states = model.fuse(
        masked.input_ids, batch.attention_mask, encoded, causal=causal, packing=encoded.packing
    )
    # Only the hidden positions meet the vocabulary: it is the widest product of the step.
    logits = model.multimodal_encoder.predict_tokens(states.flatten(0, 1)[masked.positions])
    return F.cross_entropy(logits, masked.labels)
