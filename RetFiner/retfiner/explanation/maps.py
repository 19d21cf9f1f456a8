"""A map over the image for each token of a report, layer by layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from retfiner.common.errors import InputError
from retfiner.model import Groups, RetFiner
from retfiner.text.encoder import CrossAttentionBert


class TokenMaps(NamedTuple):
    """Maps of N reports over their images; g x g patches, row 0 at the top.

    Over exams of K images there are (..., K, g, g) where here is (..., g, g).

    Attributes:
        attention: (layers, N, L, g, g) cross-attention of a token to each patch, mean over heads.
        weighted: (layers, N, L, g, g) the same, weighted by how much more of it would raise the
            match score; zero in the last layer.
        match: (N,) probability that image and report match.
    """

    attention: Tensor
    weighted: Tensor
    match: Tensor


def token_maps(
    model: RetFiner,
    images: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    groups: Groups | None = None,
) -> TokenMaps:
    """Map the tokens of reports (N, L) onto their images (N, C, H, W), normalised.

    With ``groups``, all of one size K, onto exams of (N * K, C, H, W) images.

    The gradient-weighted map is that by which ALBEF grounds words (Li et al., 2021, after
    Grad-CAM): relu(d score / d probability) * probability, mean over heads. The score is the match
    head's logit of a match minus that of none.

    Raises:
        InputError: If the model has no match head.
    """
    if not hasattr(model, "itm_head"):
        raise InputError(
            "This model has no head that matches images and reports",
            expected="a model refined with itm",
            remedy="refine with --losses itc itm mlm gm, the default",
        )
    with torch.no_grad():
        tokens = model.encode_images(images)
        if groups is not None:
            tokens, _ = model.group(tokens, groups, groups.sizes)
    with torch.enable_grad():
        text = model.multimodal_encoder
        states, probabilities = fuse_explicitly(text, input_ids, attention_mask, tokens)
        logits = model.itm_head(states[:, 0])
        score = (logits[:, 1] - logits[:, 0]).sum()  # texts do not see each other: N scores
        gradients = torch.autograd.grad(score, probabilities)
    kept = [p.detach() for p in probabilities]
    weighted = [g.clamp(min=0) * p for g, p in zip(gradients, kept, strict=True)]
    side = model.backbone.image_size // model.backbone.patch_size
    each = None if groups is None else groups.sizes[0]
    return TokenMaps(
        _on_grid(kept, side, each), _on_grid(weighted, side, each), logits.detach().softmax(1)[:, 1]
    )


def fuse_explicitly(
    text: CrossAttentionBert, input_ids: Tensor, attention_mask: Tensor, image_tokens: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Read texts (N, L) over image tokens (N, T, H) as :meth:`CrossAttentionBert.fuse` does.

    Training runs fused kernels that never form the probabilities of attention. This pass runs over
    the same weights by transformers' own eager attention, in evaluation mode, and keeps those of
    the cross-attention, so that a score can be differentiated with respect to them.

    Returns:
        (N, L, H) hidden states of the last layer, and for each layer (N, heads, L, T): how much of
        image token t word l takes.
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
    return hidden, kept


def choose_layer(layers: int, wanted: int | None = None) -> int:
    """Choose the cross-attention layer, from 0, whose maps are shown.

    The middle one by default, as ALBEF's third of six. In the last layer a word's attention
    reaches no score any more: only [CLS] is read after it.

    Raises:
        InputError: If there is no such layer, or it is the last.
    """
    if wanted is None and layers > 1:
        return (layers - 1) // 2
    if wanted is None or not 0 <= wanted < layers - 1:
        raise InputError(
            "Words cannot be followed in this layer",
            got=f"layer {wanted} of {layers}" if wanted is not None else "a single layer",
            expected=f"a layer from 0 to {layers - 2}" if layers > 1 else "at least two layers",
            remedy="the last layer's words do not reach the match score" if layers > 1 else None,
        )
    return wanted


def _on_grid(probabilities: list[Tensor], side: int, images: int | None) -> Tensor:
    """Average heads, leave out the tokens that belong to no place: (layers, N, L, side, side).

    Where each text is read over so many ``images``: (layers, N, L, images, side, side).
    """
    mean = torch.stack([p.mean(1) for p in probabilities])
    if images is not None:
        mean = mean.unflatten(-1, (images, -1))
    return mean[..., -side * side :].unflatten(-1, (side, side))
