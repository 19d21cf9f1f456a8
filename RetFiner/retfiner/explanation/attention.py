"""The fused pass once more, with its attention probabilities written out.

Training runs fused kernels that never form the probabilities. This pass runs over the same weights
by transformers' own eager attention, in evaluation mode, and keeps those of the cross-attention, so
that they can be shown and so that a score can be differentiated with respect to them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from retfiner.text.encoder import CrossAttentionBert


class FusedPass(NamedTuple):
    """What reading texts over images gave.

    Attributes:
        states: (N, L, H) hidden states of the last layer.
        probabilities: For each layer (N, heads, L, T): how much of image token t word l takes.
    """

    states: Tensor
    probabilities: list[Tensor]


def fuse_explicitly(
    text: CrossAttentionBert, input_ids: Tensor, attention_mask: Tensor, image_tokens: Tensor
) -> FusedPass:
    """Read texts over images as :meth:`CrossAttentionBert.fuse` does, without dropout.

    Args:
        text: The text encoder, in evaluation mode.
        input_ids: (N, L) token ids.
        attention_mask: (N, L), 1 for a token and 0 for padding.
        image_tokens: (N, T, H) image tokens of the text encoder's width.
    """
    text.set_attn_implementation("eager")  # others give no probabilities; fuse() asks none of them
    hidden = text.bert.embeddings(input_ids=input_ids)
    is_padding = ~attention_mask.bool()[:, None, None, :]
    mask = torch.zeros_like(is_padding, dtype=hidden.dtype).masked_fill(is_padding, -torch.inf)
    kept = []
    for layer in text.layers:
        hidden, _ = layer.attention(hidden, attention_mask=mask)
        hidden, probabilities = layer.crossattention(hidden, encoder_hidden_states=image_tokens)
        kept.append(probabilities)
        hidden = layer.output(layer.intermediate(hidden), hidden)
    return FusedPass(hidden, kept)
