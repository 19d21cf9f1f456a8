"""RETFound: the masked autoencoder and its siblings by DINOv2 and DINOv3 (Zhou et al., 2023)."""

from dataclasses import replace

from retfiner.vision import plain_vit
from retfiner.vision.dinov3 import DINOV3, meta_layout
from retfiner.vision.plain_vit import DISTILLED, LAYER_SCALE, REGISTERS, SINGLE, layout
from retfiner.vision.spec import BackboneSpec

_SOURCE = "https://github.com/rmaphoh/RETFound"
_CITATION = (
    "Zhou et al., A foundation model for generalizable disease detection from retinal images, "
    "Nature 622, 2023"
)


RETFOUND = BackboneSpec(
    name="RETFound",
    title="RETFound (MAE), ViT-L/16",
    licence="CC BY-NC 4.0",
    source=_SOURCE,
    citation=_CITATION,
    architecture=plain_vit.PLAIN_VIT,
    matches=plain_vit.has_mae_layout,
    wrap=plain_vit.under_model,
    sizes=("ViT-L/16",),
    modalities=("oct",),
    filename_hints=("retfound",),
)

# Of fundus photographs alone, 904,170 of Moorfields Eye Hospital (meh) or of Shanghai.
# DINOv2's own linear evaluation reads CLS and patch tokens after the final norm, through which
# its training losses saw them; hence concat_postnorm, here and for the other DINOv2 models.
RETFOUND_DINOV2 = BackboneSpec(
    name="RETFound-DINOv2",
    title="RETFound (DINOv2), ViT-L/14",
    licence="CC BY-NC 4.0",
    source=_SOURCE,
    citation=(
        "Zhou et al., Understanding pre-training data effects in retinal foundation models using "
        "two large fundus cohorts, Nature Communications, 2026"
    ),
    architecture=plain_vit.PLAIN_VIT,
    # DINOv2's teacher, or such an encoder alone.
    matches=layout((*DISTILLED, *SINGLE), has=(LAYER_SCALE,), lacks=REGISTERS),
    wrap=plain_vit.under_teacher,
    sizes=("ViT-L/14",),
    representation="concat_postnorm",
    modalities=("fundus",),
    filename_hints=("retfound",),
)

RETFOUND_DINOV3 = replace(
    DINOV3,
    name="RETFound-DINOv3",
    title="RETFound (DINOv3), ViT-L/16",
    licence="CC BY-NC 4.0",
    source="https://github.com/HORIZONHealthcare/Med_DINOv3",
    citation=(
        "Zhou et al., Generalist versus Specialist Vision Foundation Models for Ocular Disease and "
        "Oculomics, arXiv:2509.03421, 2025"
    ),
    # Others train DINOv3's teacher as well: the name decides.
    wrap=lambda state: plain_vit.under_teacher(meta_layout(state)),
    sizes=("ViT-L/16",),
    generic=False,
    filename_hints=("retfound",),
)
