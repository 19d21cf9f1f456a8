"""Masked autoencoders in the layout of their original code, of any size (He et al., 2022)."""

from retfiner.vision import plain_vit
from retfiner.vision.spec import BackboneSpec

MAE = BackboneSpec(
    name="MAE",
    title="MAE, ViT of any size",
    licence="CC BY-NC 4.0",
    source="https://github.com/facebookresearch/mae",
    citation="He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022",
    architecture=plain_vit.PLAIN_VIT,
    matches=plain_vit.has_mae_layout,
    wrap=plain_vit.under_model,
    sizes=("ViT-B/16", "ViT-L/16", "ViT-H/14"),
    generic=True,
    filename_hints=("mae",),
)
