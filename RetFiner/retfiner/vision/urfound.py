"""UrFound: masked modelling of retinal images guided by expert annotations (Yu et al., 2024)."""

from __future__ import annotations

from retfiner.vision import plain_vit
from retfiner.vision.checkpoint_file import RawCheckpoint
from retfiner.vision.spec import BackboneSpec
from retfiner.vision.state_dict import has_text_encoder, unwrap


def _matches(raw: RawCheckpoint) -> bool:
    """Recognise UrFound's text encoder, or a bare ViT as after extraction or refinement."""
    if not plain_vit.has_single_network_layout(raw):
        return False
    return has_text_encoder(raw) or not any(k.startswith("decoder") for k in unwrap(raw).state)


URFOUND = BackboneSpec(
    name="UrFound",
    title="UrFound, ViT-B/16",
    licence="MIT",
    source="https://github.com/yukkai/UrFound",
    citation=(
        "Yu et al., UrFound: Towards Universal Retinal Foundation Models via Knowledge-Guided "
        "Masked Modeling, MICCAI 2024"
    ),
    architecture=plain_vit.PLAIN_VIT,
    matches=_matches,
    wrap=plain_vit.under_model,
    sizes=("ViT-B/16",),
    text_norm=False,  # as published: the text side sees the last block's own output
    filename_hints=("urfound",),
)
