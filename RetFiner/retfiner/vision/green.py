"""RETFound-Green: a small DINOv2 with registers, trained on fundus images (Engelmann, 2025)."""

from __future__ import annotations

from retfiner.vision import plain_vit
from retfiner.vision.checkpoint_file import RawCheckpoint
from retfiner.vision.spec import BackboneSpec
from retfiner.vision.state_dict import unwrap


def _matches(raw: RawCheckpoint) -> bool:
    """Recognise a bare ViT with LayerScale and registers, as timm names them."""
    wrapper, state = unwrap(raw)
    return (
        wrapper == ""
        and plain_vit.is_plain_vit(state)
        and {"blocks.0.ls1.gamma", "reg_token"} <= state.keys()
    )


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
    matches=_matches,
    wrap=plain_vit.flat,
    sizes=("ViT-S/14",),
    image_size=392,
    representation="concat_postnorm",  # a DINOv2 at heart, see retfound.py
    filename_hints=("retfoundgreen", "retfound_green", "retfound-green"),
)
