"""From settings to a model: the parts, assembled."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from retfiner.common.cli import as_plain
from retfiner.common.errors import InputError
from retfiner.common.files import file_sha256
from retfiner.config import RefineConfig
from retfiner.losses import LOSSES, ITMHead, Loss
from retfiner.model import RetFiner
from retfiner.text.encoder import CrossAttentionBert
from retfiner.text.tokenizer import tokenizer_as_text
from retfiner.tuning import add_lora, depth_of, unfreeze_last
from retfiner.vision import Backbone

PACKAGES = ("torch", "torchvision", "timm", "transformers", "pytorch-lightning", "numpy", "pillow")


def build_model(
    config: RefineConfig,
    backbone: Backbone,
    text: CrossAttentionBert,
    tokenizer: PreTrainedTokenizerBase,
) -> RetFiner:
    """Assemble the model; only what an active loss needs is built.

    Args:
        config: The settings.
        backbone: The vision encoder.
        text: The text encoder.
        tokenizer: Its tokenizer.
    """
    is_contrastive = any(LOSSES[name]().uses_similarity for name in config.losses)
    model = RetFiner(
        backbone=backbone,
        text=text,
        mask_token_id=tokenizer.mask_token_id,
        contrastive_dim=512 if is_contrastive else None,
        itm_head=ITMHead(text.config.hidden_size) if "itm" in config.losses else None,
        temperature=config.contra_temp,
        exponential_temp=config.exponential_temp,
        duplicate_reports=config.duplicate_reports,
    )
    if backbone.projection:
        _load_projection(model.vision_proj, backbone)
    _tune(config, model)
    freeze_unread(model, [LOSSES[name]() for name in config.losses])
    return model


def freeze_unread(model: RetFiner, losses: Iterable[Loss]) -> None:
    """Freeze what no active loss reads: it would get no gradient, for which processes would wait.

    Args:
        model: The model.
        losses: The active losses.
    """
    losses = list(losses)
    text = model.multimodal_encoder
    unread: list[torch.nn.Parameter] = []
    if not any(loss.predicts_tokens for loss in losses):
        embedding = text.get_input_embeddings().weight  # tied to the prediction, and read
        unread += [p for p in text.cls.parameters() if p is not embedding]
    if not any(loss.uses_fusion for loss in losses):
        unread += [p for name, p in text.named_parameters() if ".crossattention." in name]
    if model.is_contrastive and not any(loss.trains_similarity for loss in losses):
        heads = (model.contra_head_t, model.contra_head_v)
        unread += [model.contra_temp, *(p for head in heads for p in head.parameters())]
    for parameter in unread:
        parameter.requires_grad_(False)


def _tune(config: RefineConfig, model: RetFiner) -> None:
    """Choose what of the vision encoder trains, and how activations are kept."""
    if config.unfreeze_last is not None:
        unfreeze_last(model.vision_encoder, config.unfreeze_last)
    if config.lora_rank is not None and config.lora_scale is not None:
        add_lora(model.vision_encoder, config.lora_rank, config.lora_scale)
    if config.layer_decay != 1:
        depth_of(model.vision_encoder)  # an encoder without blocks is refused here, not later
    if config.gradient_checkpointing:
        model.checkpoint_activations()


def _load_projection(vision_proj: torch.nn.Module, backbone: Backbone) -> None:
    """Go on from the projection to the text width that a published refined checkpoint carries."""
    wanted = {key: tuple(value.shape) for key, value in vision_proj.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in backbone.projection.items()}
    if wanted != found:
        raise InputError(
            "the checkpoint's projection to the text width does not fit the text encoder",
            got=found,
            expected=wanted,
            remedy="use the text encoder it was refined with, or one of the same width",
        )
    vision_proj.load_state_dict(backbone.projection)


def describe(
    config: RefineConfig,
    backbone: Backbone,
    text: CrossAttentionBert,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Any]:
    """Describe a run in plain data; each checkpoint carries it and can be read alone.

    Args:
        config: The settings.
        backbone: The vision encoder.
        text: The text encoder.
        tokenizer: Its tokenizer.
    """
    return {
        "backbone": backbone.spec.name,
        "image_size": backbone.image_size,
        "num_heads": backbone.num_heads,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "provenance": {
            "refined_by": f"RetFiner {version('retfiner')}",
            "run_id": uuid.uuid4().hex,
            "base_weights_file": config.model_weights.name,
            "base_weights_sha256": file_sha256(config.model_weights),
            "losses": ", ".join(f"{name} x {w:g}" for name, w in config.weights.items()),
        },
        "lora_scale": config.lora_scale,
        "text_config": as_plain_json(text.config.to_diff_dict()),
        "tokenizer": tokenizer_as_text(tokenizer),
        "settings": as_plain(config),
        "versions": versions(),
    }


def as_plain_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """Keep only what plain YAML and a safe checkpoint can hold."""
    return {
        key: item
        for key, item in value.items()
        if isinstance(item, str | int | float | bool | type(None))
    }


def versions() -> dict[str, str]:
    """Return the versions that a run's numbers depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
