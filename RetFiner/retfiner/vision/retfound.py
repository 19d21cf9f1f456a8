"""RETFound: the masked autoencoder and its DINOv2 sibling (Zhou et al., 2023)."""

from __future__ import annotations

from retfiner.vision import plain_vit
from retfiner.vision.checkpoint_file import RawCheckpoint
from retfiner.vision.spec import BackboneSpec
from retfiner.vision.state_dict import unwrap

_SOURCE = "https://github.com/rmaphoh/RETFound"
_CITATION = (
    "Zhou et al., A foundation model for generalizable disease detection from retinal images, "
    "Nature 622, 2023"
)


def _has_dinov2_layout(raw: RawCheckpoint) -> bool:
    """Recognise a DINOv2 teacher, or an encoder with LayerScale and no registers saved alone."""
    wrapper, state = unwrap(raw)
    return (
        plain_vit.is_plain_vit(state)
        and "blocks.0.ls1.gamma" in state
        and not {"reg_token", "register_tokens"} & state.keys()
        and wrapper in ("teacher", "student", "")
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
    filename_hints=("retfound",),
)

# DINOv2's own linear evaluation reads CLS and patch tokens after the final norm, through which
# its training losses saw them; hence concat_postnorm, here and for the other DINOv2 models.
RETFOUND_DINOV2 = BackboneSpec(
    name="RETFound-DINOv2",
    title="RETFound (DINOv2), ViT-L/14",
    licence="CC BY-NC 4.0",
    source=_SOURCE,
    citation=_CITATION,
    architecture=plain_vit.PLAIN_VIT,
    matches=_has_dinov2_layout,
    wrap=plain_vit.under_teacher,
    sizes=("ViT-L/14",),
    representation="concat_postnorm",
    filename_hints=("retfound",),
)
