"""Masked autoencoders in the layout of their original code, of any size (He et al., 2022)."""

from __future__ import annotations

from retfiner.vision import plain_vit
from retfiner.vision.spec import IMAGENET_MEAN, IMAGENET_STD, BackboneSpec

MAE = BackboneSpec(
    name="MAE",
    title="MAE, ViT of any size",
    licence="CC BY-NC 4.0",
    source="https://github.com/facebookresearch/mae",
    citation="He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022",
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    matches=plain_vit.has_mae_layout,
    repair=plain_vit.repair,
    build=plain_vit.build,
    resize=plain_vit.resize,
    heads=plain_vit.usual_heads,
    tokens=plain_vit.tokens,
    wrap=plain_vit.under_model,
    text_norm=True,
    representation="concat_prenorm",
    generic=True,
    filename_hints=("mae",),
)
