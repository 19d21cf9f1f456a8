"""Uni4Eye++: a masked autoencoder of ophthalmic images of two and three dimensions (Cai, 2024).

The published ``uni4eye++_vitl.pth`` is its two-dimensional model (``models_mymae.py``), trained on
intensities in [0, 1] without further normalisation (``octa500.py``).
"""

from retfiner.vision import plain_vit
from retfiner.vision.plain_vit import CONTROLLER, DECODER, LAYER_SCALE, REGISTERS, SINGLE, layout
from retfiner.vision.spec import BackboneSpec

_pretrained = layout(SINGLE, has=(CONTROLLER,), lacks=(LAYER_SCALE, *REGISTERS))
_encoder_alone = layout(SINGLE, lacks=(LAYER_SCALE, *REGISTERS, DECODER))

UNI4EYE = BackboneSpec(
    name="Uni4Eye++",
    title="Uni4Eye++, ViT-L/16",
    licence="none stated",
    source="https://github.com/Davidczy/Uni4Eye_pp",
    citation=(
        "Cai et al., Uni4Eye++: A General Masked Image Modeling Multi-modal Pre-training Framework "
        "for Ophthalmic Image Classification and Segmentation, IEEE TMI 43(12), 2024"
    ),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    architecture=plain_vit.PLAIN_VIT,
    matches=lambda raw: _pretrained(raw) or _encoder_alone(raw),
    wrap=plain_vit.under_model,
    sizes=("ViT-L/16",),
    filename_hints=("uni4eye",),
)
