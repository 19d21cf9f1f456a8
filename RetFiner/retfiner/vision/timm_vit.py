"""Any plain vision transformer of timm, as ``timm/<id>`` with weights from a local file."""

from dataclasses import replace
from functools import partial

import timm
import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from retfiner.common.errors import InputError
from retfiner.vision import plain_vit
from retfiner.vision.spec import BackboneSpec, State
from retfiner.vision.state_dict import unwrap

PREFIX = "timm/"


def timm_spec(name: str) -> BackboneSpec:
    """Make the spec of a timm model; nothing is downloaded.

    Mean, std and image size are those timm states for the id's weights.

    Raises:
        InputError: If timm has no such model, or it is no plain ViT with one class token.
    """
    model_id = name[len(PREFIX) :]
    model = _prototype(model_id)
    settings = model.pretrained_cfg
    return BackboneSpec(
        name=PREFIX + model_id,
        title=f"timm {model_id}",
        licence=settings.get("license") or "see the source",
        source="https://github.com/huggingface/pytorch-image-models",
        citation="Wightman, PyTorch Image Models, 2019; and the paper of the weights",
        architecture=replace(
            plain_vit.PLAIN_VIT,
            build=partial(_build, model_id, model),
            heads=lambda state: model.blocks[0].attn.num_heads,
        ),
        # Any plain ViT: the id was asked for by name, and the loader compares shapes.
        matches=lambda raw: plain_vit.is_plain_vit(unwrap(raw).state),
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
    model_id: str, prototype: VisionTransformer, state: State, image_size: int, num_heads: int
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
    return timm.create_model(
        model_id, pretrained=False, num_classes=0, global_pool="", img_size=image_size
    )


def _prototype(model_id: str) -> VisionTransformer:
    """Build a timm model without memory, to learn what it is."""
    advice = "see timm.list_models('vit_*'); the model must be a VisionTransformer"
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
    plain = (
        type(model) is VisionTransformer
        and isinstance(model.patch_embed, PatchEmbed)
        and model.has_class_token
        and model.attn_pool is None
    )
    if not plain:
        raise InputError(
            f"timm/{model_id} cannot serve as a backbone",
            got=type(model).__name__
            + ("" if getattr(model, "has_class_token", True) else ", no class token"),
            expected="a plain VisionTransformer with one class token",
            remedy=advice,
        )
    return model
