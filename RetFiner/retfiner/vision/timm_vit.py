"""Any plain vision transformer or DINOv3 of timm, as ``timm/<id>``, from a local file."""

from dataclasses import replace
from functools import partial

import timm
import torch
from timm.layers import PatchEmbed, RotaryEmbeddingDinoV3
from timm.models.eva import Eva, EvaAttention
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from retfiner.common.errors import InputError
from retfiner.vision import dinov3, plain_vit
from retfiner.vision.spec import BackboneSpec, State
from retfiner.vision.state_dict import unwrap

PREFIX = "timm/"


def timm_spec(name: str) -> BackboneSpec:
    """Make the spec of a timm model; nothing is downloaded.

    Mean, std and image size are those timm states for the id's weights.

    Raises:
        InputError: If timm has no such model, or it is neither a plain ViT with one class token nor
            a DINOv3.
    """
    model_id = name[len(PREFIX) :]
    model = _prototype(model_id)
    settings = model.pretrained_cfg
    is_of_kind = dinov3.is_dinov3 if isinstance(model, Eva) else plain_vit.is_plain_vit
    return BackboneSpec(
        name=PREFIX + model_id,
        title=f"timm {model_id}",
        licence=settings.get("license") or "see the source",
        source="https://github.com/huggingface/pytorch-image-models",
        citation="Wightman, PyTorch Image Models, 2019; and the paper of the weights",
        architecture=replace(
            dinov3.DINOV3_VIT if isinstance(model, Eva) else plain_vit.PLAIN_VIT,
            build=partial(_build, model_id, model),
            heads=lambda state: model.blocks[0].attn.num_heads,
        ),
        # Any of the kind: the id was asked for by name, and the loader compares shapes.
        matches=lambda raw: is_of_kind(unwrap(raw).state),
        wrap=plain_vit.flat,
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
        in_chans=settings["input_size"][0],
        image_size=settings["input_size"][-1],
        # Their pretraining ends in the final norm, whatever it was: features are read after it.
        representation="concat_postnorm",
        generic=True,
    )


def _build(
    model_id: str, prototype: VisionTransformer | Eva, state: State, image_size: int, num_heads: int
) -> nn.Module:
    """Do what ``Architecture.build`` asks; timm knows every size but the image's."""
    heads, patch = prototype.blocks[0].attn.num_heads, prototype.patch_embed.patch_size[0]
    plain_vit.check_sizes(prototype.embed_dim, patch, image_size, num_heads)
    if num_heads != heads:
        raise InputError(
            f"{PREFIX}{model_id} has a fixed number of attention heads",
            got=num_heads,
            expected=heads,
        )
    encoder = timm.create_model(
        model_id,
        pretrained=False,
        num_classes=0,
        global_pool="",
        img_size=image_size,
        dynamic_img_size=False,
    )
    return dinov3.with_separate_bias(encoder) if isinstance(encoder, Eva) else encoder


def is_timms(encoder: nn.Module) -> bool:
    """Say whether timm has a model that computes the same of the same weights."""
    parts = (encoder, *getattr(encoder, "blocks", ()))
    return all(type(part).__module__.startswith("timm.") for part in parts)


def _prototype(model_id: str) -> VisionTransformer | Eva:
    """Build a timm model without memory, to learn what it is."""
    advice = "see timm.list_models('vit_*'); the model must be a VisionTransformer or a DINOv3"
    if not timm.is_model(model_id.split(".", maxsplit=1)[0]) or ":" in model_id:
        raise InputError(
            f"timm has no model {model_id!r}",
            got=PREFIX + model_id,
            expected="for example timm/vit_small_patch14_dinov2.lvd142m",
            remedy=advice,
        )
    try:
        with torch.device("meta"):
            model = timm.create_model(model_id, pretrained=False)
    except RuntimeError as error:
        raise InputError(
            f"timm cannot build {model_id!r}", got=str(error), remedy="check the part after the dot"
        ) from error
    known = isinstance(getattr(model, "patch_embed", None), PatchEmbed) and (
        (type(model) is VisionTransformer and model.has_class_token and model.attn_pool is None)
        or _is_dinov3(model)
    )
    if not known:
        raise InputError(
            f"timm/{model_id} cannot serve as a backbone",
            got=type(model).__name__
            + ("" if getattr(model, "has_class_token", True) else ", no class token"),
            expected="a plain VisionTransformer with one class token, or a DINOv3",
            remedy=advice,
        )
    return model


def _is_dinov3(model: nn.Module) -> bool:
    """Say so of what computes as DINOv3 does; timm's ``Eva`` is a class of many kinds of ViTs."""
    return (
        isinstance(model, Eva)
        and isinstance(model.rope, RotaryEmbeddingDinoV3)
        and isinstance(model.blocks[0].attn, EvaAttention)
        and model.cls_token is not None
        and model.pos_embed is None
    )
