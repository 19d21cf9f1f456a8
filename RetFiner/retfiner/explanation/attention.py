"""The fused pass once more, with its attention probabilities written out.

Training runs fused kernels that never form the probabilities. This pass runs over the same weights,
in evaluation mode, and keeps those of the cross-attention, so that they can be shown and so that a
score can be differentiated with respect to them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

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
        text: The text encoder.
        input_ids: (N, L) token ids.
        attention_mask: (N, L), 1 for a token and 0 for padding.
        image_tokens: (N, T, H) image tokens of the text encoder's width.
    """
    hidden = text.bert.embeddings.LayerNorm(_embedded(text.bert.embeddings, input_ids))
    mask = attention_mask.bool()[:, None, None, :]
    kept = []
    for layer in text.bert.encoder.layer:
        hidden, _ = _attend(layer.attention, hidden, hidden, mask)
        hidden, probabilities = _attend(layer.crossattention, hidden, image_tokens, None)
        kept.append(probabilities)
        hidden = _add_and_norm(layer.output, layer.intermediate(hidden), hidden)
    return FusedPass(hidden, kept)


def _embedded(embeddings: Any, input_ids: Tensor) -> Tensor:
    """Add the embeddings of words, places and the one segment there is."""
    words = embeddings.word_embeddings(input_ids)
    places = embeddings.position_embeddings(embeddings.position_ids[:, : input_ids.shape[1]])
    return words + places + embeddings.token_type_embeddings.weight[0]


def _attend(
    attention: Any, hidden: Tensor, source: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Attend from hidden states to a source; return the new states and the probabilities."""
    core = attention.self
    query, key, value = (
        states.unflatten(-1, (core.num_attention_heads, -1)).transpose(1, 2)
        for states in (core.query(hidden), core.key(source), core.value(source))
    )
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    probabilities = scores.softmax(-1)
    context = (probabilities @ value).transpose(1, 2).flatten(2)
    return _add_and_norm(attention.output, context, hidden), probabilities


def _add_and_norm(output: Any, states: Tensor, hidden: Tensor) -> Tensor:
    return output.LayerNorm(output.dense(states) + hidden)
