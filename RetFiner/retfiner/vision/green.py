"""RETFound-Green: a small DINOv2 with registers, trained on fundus images (Engelmann, 2025)."""

from retfiner.vision import plain_vit
from retfiner.vision.spec import BackboneSpec

RETFOUND_GREEN = BackboneSpec(
    name="RETFound-Green",
    title="RETFound-Green, ViT-S/14 with 4 registers",
    licence="non-commercial research only (own licence)",
    source="https://github.com/justinengelmann/RETFound_Green",
    citation=(
        "Engelmann and Bernabeu, Training a high-performance retinal foundation model with "
        "half-the-data and 400 times less compute, Nature Communications 16, 2025"
    ),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    architecture=plain_vit.PLAIN_VIT,
    matches=plain_vit.layout(plain_vit.SINGLE, has=(plain_vit.LAYER_SCALE, "reg_token")),
    wrap=plain_vit.flat,
    sizes=("ViT-S/14",),
    image_size=392,
    representation="concat_postnorm",  # a DINOv2 at heart, see retfound.py
    filename_hints=("retfoundgreen", "retfound_green", "retfound-green"),
)
