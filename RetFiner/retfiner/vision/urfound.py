"""UrFound: masked modelling of retinal images guided by expert annotations (Yu et al., 2024)."""

from retfiner.vision import plain_vit
from retfiner.vision.plain_vit import DECODER, LAYER_SCALE, REGISTERS, SINGLE, TEXT_ENCODER, layout
from retfiner.vision.spec import BackboneSpec

_pretrained = layout(SINGLE, has=(TEXT_ENCODER,), lacks=(LAYER_SCALE, *REGISTERS))
_encoder_alone = layout(SINGLE, lacks=(LAYER_SCALE, *REGISTERS, DECODER))

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
    matches=lambda raw: _pretrained(raw) or _encoder_alone(raw),
    wrap=plain_vit.under_model,
    sizes=("ViT-B/16",),
    text_norm=False,  # as published: the text side sees the last block's own output
    modalities=("oct", "fundus"),
    filename_hints=("urfound",),
)
