"""Linear-probing features: one vector an image from the last block's tokens.

The definitions are those of the published probing protocol, where RETFound and UrFound use
``concat_prenorm`` and VisionFM ``concat_postnorm``.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from retfiner.common.errors import InputError

NORM_EPS = 1e-6
"""Epsilon of the protocol's own LayerNorm, the same as in the backbones."""

METHODS = ("concat", "concat_prenorm", "concat_postnorm", "global_pool", "cls_token")
"""What a probe can be trained on; ``concat`` stands for the backbone's own definition."""


PATCH_TOKENS = "patch_tokens"
"""Not one vector an image but all: what an attentive probe is trained on, in half precision."""


class ImageTokens(NamedTuple):
    """The last block's output, without the final norm.

    Attributes:
        prefix: (B, P, D) tokens that belong to no place: CLS first, then registers.
        patches: (B, N, D) patch tokens in row-major order.
    """

    prefix: Tensor
    patches: Tensor


def probing_features(
    tokens: ImageTokens, norm: Callable[[Tensor], Tensor] | None, method: str
) -> Tensor:
    """Turn tokens into features.

    * ``concat_prenorm``: [mean of patch tokens, CLS] without the final norm, then a LayerNorm of
      twice the width with weight 1 and bias 0.
    * ``concat_postnorm``: after the final norm, [CLS, mean of patch tokens].
    * ``global_pool``: mean of patch tokens without the final norm, then a LayerNorm with weight 1
      and bias 0.
    * ``cls_token``: CLS after the final norm.
    * ``patch_tokens``: every patch token after the final norm, or without one after a LayerNorm
      with weight 1 and bias 0; (B, N D) float16.

    ``norm``, the final one, is None for an encoder without, whose last output is already final.

    Returns:
        (B, D) or, for the concatenations, (B, 2D).

    Raises:
        InputError: If the method is unknown.
    """
    cls, patches = tokens.prefix[:, 0], tokens.patches
    if method == PATCH_TOKENS:
        return (_plain_norm if norm is None else norm)(patches).flatten(1).half()
    if method == "concat_prenorm":
        return _plain_norm(torch.cat([patches.mean(dim=1), cls], dim=1))
    if method == "global_pool":
        return _plain_norm(patches.mean(dim=1))
    if method not in ("concat_postnorm", "cls_token"):
        raise _unknown(method)
    if norm is not None:
        cls, patches = norm(cls), norm(patches)
    return cls if method == "cls_token" else torch.cat([cls, patches.mean(dim=1)], dim=1)


def feature_width(width: int, method: str | None = None) -> int:
    """Give the length of a feature vector; ``method`` None is the backbone's own.

    Raises:
        InputError: If the method is unknown.
    """
    if method not in (None, *METHODS):
        raise _unknown(method)
    return 2 * width if method is None or method.startswith("concat") else width


def _plain_norm(x: Tensor) -> Tensor:
    """Apply a LayerNorm as initialised, which the protocol never trains."""
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)


def _unknown(method: str | None) -> InputError:
    return InputError(
        "There is no such kind of probing feature", got=method, expected=", ".join(METHODS)
    )
