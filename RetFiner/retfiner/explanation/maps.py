"""A map over the image for each token of a report, layer by layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from retfiner.common.errors import InputError
from retfiner.explanation.attention import fuse_explicitly
from retfiner.model import RetFiner


class TokenMaps(NamedTuple):
    """Maps of N reports over their images; g x g patches, row 0 at the top.

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
    model: RetFiner, images: Tensor, input_ids: Tensor, attention_mask: Tensor
) -> TokenMaps:
    """Map the tokens of reports onto their images.

    The gradient-weighted map is that by which ALBEF grounds words (Li et al., 2021, after
    Grad-CAM): relu(d score / d probability) * probability, mean over heads. The score is the match
    head's logit of a match minus that of none.

    Args:
        model: A model refined with ITM, in evaluation mode.
        images: (N, C, H, W), normalised.
        input_ids: (N, L) token ids.
        attention_mask: (N, L), 1 for a token and 0 for padding.

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
    with torch.enable_grad():
        text = model.multimodal_encoder
        states, probabilities = fuse_explicitly(text, input_ids, attention_mask, tokens)
        logits = model.itm_head(states[:, 0])
        score = (logits[:, 1] - logits[:, 0]).sum()  # texts do not see each other: N scores
        gradients = torch.autograd.grad(score, probabilities)
    kept = [p.detach() for p in probabilities]
    weighted = [g.clamp(min=0) * p for g, p in zip(gradients, kept, strict=True)]
    side = model.backbone.image_size // model.backbone.patch_size
    return TokenMaps(
        _on_grid(kept, side), _on_grid(weighted, side), logits.detach().softmax(1)[:, 1]
    )


def choose_layer(layers: int, wanted: int | None = None) -> int:
    """Choose the cross-attention layer whose maps are shown.

    The middle one by default, as ALBEF's third of six. In the last layer a word's attention
    reaches no score any more: only [CLS] is read after it.

    Args:
        layers: Number of cross-attention layers.
        wanted: A layer from 0; None for the default.

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


def _on_grid(probabilities: list[Tensor], side: int) -> Tensor:
    """Average heads, leave out the tokens that belong to no place: (layers, N, L, side, side)."""
    mean = torch.stack([p.mean(1) for p in probabilities])
    return mean[..., -side * side :].unflatten(-1, (side, side))
