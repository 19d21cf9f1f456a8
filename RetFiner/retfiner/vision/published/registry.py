"""Every published checkpoint that can be refined or probed: literal data, read without torch.

What is not known stands as None and is never guessed. Addresses are those of the authors' own
pages. None of them publishes a hash; those below are what people who downloaded the files from
there found, each stated in at least two places that have nothing to do with each other. Where there
is none, a file from the Hugging Face hub is held to the hub's own.

To add one, write an entry; the test of ``pretrained_weights/README.md`` shows the table's new line.
"""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET_224 = "224 px, 3 channels, ImageNet"
VISIONFM_224 = "224 px, 3 channels, VisionFM's own"
MIRAGE_512 = "512 px, 1 channel, min-max"


@dataclass(frozen=True)
class PublishedWeights:
    """A published checkpoint.

    Attributes:
        name: What ``get.py`` and ``--model_weights`` take.
        files: Names that the file goes by; a download gets the first.
        backbone: Its name in ``BACKBONES``.
        page: Where its authors offer it, and state the terms.
        licence: Licence of the weights.
        paper: Whom to cite.
        input: The image it expects: side, channels, and what they are normalised by.
        url: The file itself, over HTTPS.
        hub: Its repository on the Hugging Face hub, if it lies there.
        drive: Its address on Google Drive, which a browser alone can download from.
        gated: Whether the hub asks for a login and for consent to terms.
        gigabytes: Size in units of 10^9 bytes.
        sha256: Hash of the bytes.
        refines: Name of the entry it was refined from; None for a base model.
    """

    name: str
    files: tuple[str, ...]
    backbone: str
    page: str
    licence: str
    paper: str
    input: str
    url: str | None = None
    hub: str | None = None
    drive: str | None = None
    gated: bool = False
    gigabytes: float | None = None
    sha256: str | None = None
    refines: str | None = None


_RETFOUND = (
    "Zhou et al., A foundation model for generalizable disease detection from retinal images, "
    "Nature 622, 2023"
)
_RETFOUND_DATA = (
    "Zhou et al., Understanding pre-training data effects in retinal foundation models using two "
    "large fundus cohorts, Nature Communications, 2026"
)
_MIRAGE = (
    "Morano et al., MIRAGE: Multimodal foundation model and benchmark for comprehensive retinal "
    "OCT image analysis, npj Digital Medicine, 2025"
)
_MAE = "He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022"
_DINOV2 = "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR 2024"
_RETFINER = (
    "Fecso et al., RetFiner: A Vision-Language Refinement Scheme for Retinal Foundation Models, "
    "MICCAI 2025"
)
_RETFINER_PAGE = "https://github.com/ronnief1/RetFiner/releases/tag/weights"
_RETFINER_FILES = "https://github.com/ronnief1/RetFiner/releases/download/weights"
_MIRAGE_FILES = "https://github.com/j-morano/MIRAGE/releases/download/weights"
_MAE_FILES = "https://dl.fbaipublicfiles.com/mae/pretrain"
_DINOV2_FILES = "https://dl.fbaipublicfiles.com/dinov2"

WEIGHTS: tuple[PublishedWeights, ...] = (
    PublishedWeights(
        name="RETFound",
        # The first release, named as below on Google Drive; the hub holds the second name.
        files=("RETFound_mae_natureOCT.pth", "RETFound_oct_weights.pth"),
        backbone="RETFound",
        page="https://huggingface.co/YukunZhou/RETFound_mae_natureOCT",
        licence="CC BY-NC 4.0",
        paper=_RETFOUND,
        input=IMAGENET_224,
        hub="YukunZhou/RETFound_mae_natureOCT",
        gated=True,
        gigabytes=3.95,
        sha256="e9ff7864f40334885062953cb3894739d9fff52aaeb22c8b4f47d92270068d18",
    ),
    PublishedWeights(
        name="RETFound-DINOv2",
        files=("RETFound_dinov2_meh.pth",),
        backbone="RETFound-DINOv2",
        page="https://huggingface.co/YukunZhou/RETFound_dinov2_meh",
        licence="CC BY-NC 4.0",
        paper=_RETFOUND_DATA,
        input=IMAGENET_224,
        hub="YukunZhou/RETFound_dinov2_meh",
        gated=True,
    ),
    PublishedWeights(
        name="RETFound-DINOv2-Shanghai",
        files=("RETFound_dinov2_shanghai.pth",),
        backbone="RETFound-DINOv2",
        page="https://huggingface.co/YukunZhou/RETFound_dinov2_shanghai",
        licence="CC BY-NC 4.0",
        paper=_RETFOUND_DATA,
        input=IMAGENET_224,
        hub="YukunZhou/RETFound_dinov2_shanghai",
        gated=True,
    ),
    PublishedWeights(
        name="RETFound-DINOv3",
        files=("retfound_dinov3.pth",),
        backbone="RETFound-DINOv3",
        page="https://huggingface.co/YukunZhou/retfound_dinov3",
        licence="CC BY-NC 4.0",
        paper=(
            "Zhou et al., Generalist versus Specialist Vision Foundation Models for Ocular Disease "
            "and Oculomics, arXiv:2509.03421, 2025"
        ),
        input=IMAGENET_224,
        hub="YukunZhou/retfound_dinov3",
        gated=True,
    ),
    PublishedWeights(
        name="RETFound-Green",
        files=("retfoundgreen_statedict.pth",),
        backbone="RETFound-Green",
        page="https://github.com/justinengelmann/RETFound_Green/releases/tag/v0.1",
        licence="non-commercial research only (own licence)",
        paper=(
            "Engelmann and Bernabeu, Training a high-performance retinal foundation model with "
            "half-the-data and 400 times less compute, Nature Communications 16, 2025"
        ),
        input="392 px, 3 channels, mean and std 0.5",
        url="https://github.com/justinengelmann/RETFound_Green/releases/download/v0.1/"
        "retfoundgreen_statedict.pth",
        gigabytes=0.087,
        sha256="431de5dbc1bebbb32f60e2c0bcf8daa4f8bcbf06f7cb1e1dc97ec589713942e1",
    ),
    PublishedWeights(
        name="UrFound",
        files=("urfound_mm.pth",),
        backbone="UrFound",
        page="https://huggingface.co/yyyyk/UrFound",
        licence="MIT",
        paper=(
            "Yu et al., UrFound: Towards Universal Retinal Foundation Models via Knowledge-Guided "
            "Masked Modeling, MICCAI 2024"
        ),
        input=IMAGENET_224,
        hub="yyyyk/UrFound",
        gigabytes=1.82,
    ),
    PublishedWeights(
        name="VisionFM",
        files=("VFM_OCT_weights.pth",),
        backbone="VisionFM",
        page="https://github.com/ABILab-CUHK/VisionFM",
        drive="https://drive.google.com/file/d/1o6E-ine2QLx2pxap-c77u-SU0FjxwypA/view",
        licence="research and education only, not commercial",
        paper=(
            "Qiu et al., Development and Validation of a Multimodal Multitask Vision Foundation "
            "Model for Generalist Ophthalmic Artificial Intelligence, NEJM AI 1(12), 2024"
        ),
        input=VISIONFM_224,
        gigabytes=1.51,
    ),
    PublishedWeights(
        name="EyeCLIP",
        files=("eyeclip_visual.pt",),
        backbone="EyeCLIP",
        page="https://github.com/Michi-3000/EyeCLIP",
        drive="https://drive.google.com/file/d/1u_pUJYPppbprVQQ5jaULEKKp-eJqaVw6/view",
        licence="none stated",
        paper=(
            "Shi et al., A multimodal visual-language foundation model for computational "
            "ophthalmology, npj Digital Medicine 8, 2025"
        ),
        input="224 px, 3 channels, CLIP's own",
    ),
    PublishedWeights(
        name="OCTCube",
        files=("OCTCube.pth",),
        backbone="OCTCube",
        page="https://github.com/ZucksLiu/OCTCubeM",
        drive="https://drive.google.com/file/d/1NLodgy0UGeBHAj0DzFMFmsAtVGq9NHUo/view",
        licence="none stated (its code: BSD 2-Clause)",
        paper=(
            "Liu et al., OCTCube-M: A 3D multimodal optical coherence tomography foundation model "
            "for retinal and systemic diseases, arXiv:2408.11227, 2024"
        ),
        input="256 px, 3 channels, [0, 1]",
    ),
    PublishedWeights(
        name="Uni4Eye++",
        files=("uni4eye++_vitl.pth",),
        backbone="Uni4Eye++",
        page="https://github.com/Davidczy/Uni4Eye_pp",
        drive="https://drive.google.com/file/d/12Cw-OpyBcFbs2zcT368cG6DJPVKVRMEa/view",
        licence="none stated",
        paper=(
            "Cai et al., Uni4Eye++: A General Masked Image Modeling Multi-modal Pre-training "
            "Framework for Ophthalmic Image Classification and Segmentation, IEEE TMI 43(12), 2024"
        ),
        input="224 px, 3 channels, [0, 1]",
    ),
    PublishedWeights(
        name="MIRAGE-Large",
        files=("MIRAGE-Large.pth",),
        backbone="MIRAGE",
        page="https://github.com/j-morano/MIRAGE/releases/tag/weights",
        licence="CC BY-NC-ND 4.0",
        paper=_MIRAGE,
        input=MIRAGE_512,
        url=f"{_MIRAGE_FILES}/MIRAGE-Large.pth",
    ),
    PublishedWeights(
        name="MIRAGE-Base",
        files=("MIRAGE-Base.pth",),
        backbone="MIRAGE",
        page="https://github.com/j-morano/MIRAGE/releases/tag/weights",
        licence="CC BY-NC-ND 4.0",
        paper=_MIRAGE,
        input=MIRAGE_512,
        url=f"{_MIRAGE_FILES}/MIRAGE-Base.pth",
    ),
    PublishedWeights(
        name="MAE-Large",
        files=("mae_pretrain_vit_large.pth",),
        backbone="MAE",
        page="https://github.com/facebookresearch/mae",
        licence="CC BY-NC 4.0",
        paper=_MAE,
        input=IMAGENET_224,
        url=f"{_MAE_FILES}/mae_pretrain_vit_large.pth",
    ),
    PublishedWeights(
        name="MAE-Base",
        files=("mae_pretrain_vit_base.pth",),
        backbone="MAE",
        page="https://github.com/facebookresearch/mae",
        licence="CC BY-NC 4.0",
        paper=_MAE,
        input=IMAGENET_224,
        url=f"{_MAE_FILES}/mae_pretrain_vit_base.pth",
    ),
    PublishedWeights(
        name="MAE-Huge",
        files=("mae_pretrain_vit_huge.pth",),
        backbone="MAE",
        page="https://github.com/facebookresearch/mae",
        licence="CC BY-NC 4.0",
        paper=_MAE,
        input=IMAGENET_224,
        url=f"{_MAE_FILES}/mae_pretrain_vit_huge.pth",
    ),
    PublishedWeights(
        name="DINOv2-Small",
        files=("dinov2_vits14_pretrain.pth",),
        backbone="DINOv2",
        page="https://github.com/facebookresearch/dinov2",
        licence="Apache 2.0",
        paper=_DINOV2,
        input=IMAGENET_224,
        url=f"{_DINOV2_FILES}/dinov2_vits14/dinov2_vits14_pretrain.pth",
        gigabytes=0.088,
        sha256="b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    ),
    PublishedWeights(
        name="DINOv2-Base",
        files=("dinov2_vitb14_pretrain.pth",),
        backbone="DINOv2",
        page="https://github.com/facebookresearch/dinov2",
        licence="Apache 2.0",
        paper=_DINOV2,
        input=IMAGENET_224,
        url=f"{_DINOV2_FILES}/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
        gigabytes=0.346,
        sha256="0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    ),
    PublishedWeights(
        name="DINOv2-Large",
        files=("dinov2_vitl14_pretrain.pth",),
        backbone="DINOv2",
        page="https://github.com/facebookresearch/dinov2",
        licence="Apache 2.0",
        paper=_DINOV2,
        input=IMAGENET_224,
        url=f"{_DINOV2_FILES}/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
        gigabytes=1.218,
        sha256="d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    ),
    PublishedWeights(
        name="RetFiner-R",
        files=("RetFiner_RETFound.pth",),
        backbone="RETFound",
        page=_RETFINER_PAGE,
        licence="CC BY-NC 4.0",
        paper=_RETFINER,
        input=IMAGENET_224,
        url=f"{_RETFINER_FILES}/RetFiner_RETFound.pth",
        refines="RETFound",
    ),
    PublishedWeights(
        name="RetFiner-U",
        files=("RetFiner_UrFound.pth",),
        backbone="UrFound",
        page=_RETFINER_PAGE,
        licence="CC BY-NC 4.0",
        paper=_RETFINER,
        input=IMAGENET_224,
        url=f"{_RETFINER_FILES}/RetFiner_UrFound.pth",
        refines="UrFound",
    ),
    PublishedWeights(
        name="RetFiner-V",
        files=("RetFiner_VisionFM.pth",),
        backbone="VisionFM",
        page=_RETFINER_PAGE,
        licence="CC BY-NC 4.0",
        paper=_RETFINER,
        input=VISIONFM_224,
        url=f"{_RETFINER_FILES}/RetFiner_VisionFM.pth",
        refines="VisionFM",
    ),
)
