"""DINOv2 backbones as published, with or without registers (Oquab et al., 2024)."""

from retfiner.vision import plain_vit
from retfiner.vision.spec import BackboneSpec

DINOV2 = BackboneSpec(
    name="DINOv2",
    title="DINOv2, ViT-S/14 to ViT-L/14",
    licence="Apache 2.0",
    source="https://github.com/facebookresearch/dinov2",
    citation=(
        "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR 2024"
    ),
    architecture=plain_vit.PLAIN_VIT,
    matches=plain_vit.layout(plain_vit.SINGLE, has=(plain_vit.LAYER_SCALE,)),
    wrap=plain_vit.flat,
    sizes=("ViT-S/14", "ViT-B/14", "ViT-L/14"),
    representation="concat_postnorm",  # as DINOv2's own linear evaluation, see retfound.py
    generic=True,
    filename_hints=("dinov2",),
)
