"""VisionFM: iBOT self-distillation on ophthalmic images of eight modalities (Qiu et al., 2024)."""

from retfiner.vision import plain_vit
from retfiner.vision.plain_vit import DECODER, DISTILLED, LAYER_SCALE, TEXT_ENCODER, layout
from retfiner.vision.spec import BackboneSpec

_ibot_or_alone = layout((*DISTILLED, ""), lacks=(LAYER_SCALE, DECODER, TEXT_ENCODER))

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
    # DINO's own checkpoints differ from iBOT's by the name of the loss they store.
    matches=lambda raw: _ibot_or_alone(raw) and "dino_loss" not in raw.content,
    wrap=plain_vit.under_teacher,
    sizes=("ViT-B/16",),
    representation="concat_postnorm",
    modalities=("oct",),
    filename_hints=("visionfm", "vfm"),
)
