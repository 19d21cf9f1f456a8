"""VisionFM: iBOT self-distillation on ophthalmic images of eight modalities (Qiu et al., 2024)."""

from __future__ import annotations

from retfiner.vision import plain_vit
from retfiner.vision.checkpoint_file import RawCheckpoint
from retfiner.vision.spec import BackboneSpec
from retfiner.vision.state_dict import has_text_encoder, unwrap


def _matches(raw: RawCheckpoint) -> bool:
    """Recognise an iBOT teacher or student, or a bare ViT as after extraction or refinement.

    DINO's own checkpoints differ from iBOT's by the name of the loss they store.
    """
    wrapper, state = unwrap(raw)
    return (
        plain_vit.is_plain_vit(state)
        and "blocks.0.ls1.gamma" not in state
        and not any(key.startswith("decoder") for key in state)
        and not has_text_encoder(raw)
        and wrapper in ("teacher", "student", "")
        and "dino_loss" not in raw.content
    )


VISIONFM = BackboneSpec(
    name="VisionFM",
    title="VisionFM, ViT-B/16",
    licence="research and education only, not commercial",
    source="https://github.com/ABILab-CUHK/VisionFM",
    citation=(
        "Qiu et al., Development and Validation of a Multimodal Multitask Vision Foundation Model "
        "for Generalist Ophthalmic Artificial Intelligence, NEJM AI 1(12), 2024"
    ),
    mean=(0.21091926, 0.21091926, 0.21091919),
    std=(0.17598894, 0.17598891, 0.17598893),
    architecture=plain_vit.PLAIN_VIT,
    matches=_matches,
    wrap=plain_vit.under_teacher,
    sizes=("ViT-B/16",),
    representation="concat_postnorm",
    filename_hints=("visionfm", "vfm"),
)
