"""DINOv2 backbones as published, with or without registers (Oquab et al., 2024)."""

from __future__ import annotations

from retfiner.vision import plain_vit
from retfiner.vision.checkpoint_file import RawCheckpoint
from retfiner.vision.spec import BackboneSpec
from retfiner.vision.state_dict import unwrap


def _matches(raw: RawCheckpoint) -> bool:
    """Recognise a bare ViT with LayerScale."""
    wrapper, state = unwrap(raw)
    return wrapper == "" and plain_vit.is_plain_vit(state) and "blocks.0.ls1.gamma" in state


DINOV2 = BackboneSpec(
    name="DINOv2",
    title="DINOv2, ViT-S/14 to ViT-L/14",
    licence="Apache 2.0",
    source="https://github.com/facebookresearch/dinov2",
    citation=(
        "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR 2024"
    ),
    architecture=plain_vit.PLAIN_VIT,
    matches=_matches,
    wrap=plain_vit.flat,
    sizes=("ViT-S/14", "ViT-B/14", "ViT-L/14"),
    representation="concat_postnorm",  # as DINOv2's own linear evaluation, see retfound.py
    generic=True,
    filename_hints=("dinov2",),
)
