"""From settings to a model: the parts, assembled."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from retfiner.common.errors import InputError
from retfiner.common.files import file_sha256
from retfiner.losses import LOSSES, ITMHead
from retfiner.model import Contrast, DuplicateReports, Pooling, RetFiner
from retfiner.text.encoder import CrossAttentionBert
from retfiner.text.tokenizer import tokenizer_as_text
from retfiner.vision import Backbone

PACKAGES = ("torch", "torchvision", "timm", "transformers", "pytorch-lightning", "numpy", "pillow")


def build_model(
    backbone: Backbone,
    text: CrossAttentionBert,
    mask_token_id: int,
    *,
    losses: Sequence[str],
    max_text_tokens: int = 30,
    temperature: float = 0.07,
    exponential_temp: bool = False,
    duplicate_reports: DuplicateReports = "shared",
    random_token_from: int = 0,
    redraw_masks: bool = False,
    contrast: Contrast = "softmax",
    chunk_size: int | None = None,
    pooling: Pooling | None = None,
) -> RetFiner:
    """Assemble the model; only what an active loss needs is built.

    Args:
        backbone: The vision encoder.
        text: The text encoder.
        mask_token_id: Its tokenizer's [MASK].
        losses: Names of the active losses.
        max_text_tokens: Reports are cut at this many WordPieces.
        temperature: Contrastive temperature to start from.
        exponential_temp: Whether its logarithm is learned.
        duplicate_reports: ``shared``, ``ignore`` or ``similar``.
        random_token_from: Smallest id of the random tokens that replace words.
        redraw_masks: Whether masks of a report are drawn until they hide a word.
        contrast: ``softmax`` or ``sigmoid``.
        chunk_size: Pairs whose activations are in memory together; None for all of a batch.
        pooling: How images of an exam are brought together; None where a pair has one.

    Raises:
        InputError: If the parts do not fit each other.
    """
    longest = text.config.max_position_embeddings
    if max_text_tokens > longest:
        raise InputError(
            "--max_text_tokens is longer than the text encoder can read",
            got=max_text_tokens,
            expected=f"at most {longest}",
        )
    if random_token_from >= text.config.vocab_size:
        raise InputError(
            "--random_token_from leaves no token to draw",
            got=random_token_from,
            expected=f"below {text.config.vocab_size}, the text encoder's vocabulary",
            remedy="how many special tokens its vocabulary begins with, or leave it out",
        )
    is_contrastive = any(LOSSES[name]().uses_similarity for name in losses)
    model = RetFiner(
        backbone=backbone,
        text=text,
        mask_token_id=mask_token_id,
        contrastive_dim=512 if is_contrastive else None,
        itm_head=ITMHead(text.config.hidden_size) if "itm" in losses else None,
        temperature=temperature,
        exponential_temp=exponential_temp,
        duplicate_reports=duplicate_reports,
        random_token_from=random_token_from,
        redraw_masks=redraw_masks,
        contrast=contrast,
        chunk_size=chunk_size,
        pooling=pooling,
    )
    if backbone.projection:
        _load_projection(model.vision_proj, backbone)
    return model


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
    backbone: Backbone,
    text: CrossAttentionBert,
    tokenizer: PreTrainedTokenizerBase,
    *,
    settings: dict[str, Any],
    given: Collection[str],
    data: dict[str, Any],
    lora_scale: float | None = None,
) -> dict[str, Any]:
    """Describe a run in plain data; each checkpoint carries it and can be read alone.

    Args:
        backbone: The vision encoder.
        text: The text encoder.
        tokenizer: Its tokenizer.
        settings: Every setting of the run by name, as plain data.
        given: Those of a recipe's settings that the user set; the recipe chose its others.
        data: How many pairs there are, and ``data_sha256`` of what they hold.
        lora_scale: What low-rank updates are multiplied by, where there are any.
    """
    base = Path(settings["model_weights"])
    return {
        "backbone": backbone.spec.name,
        "image_size": backbone.image_size,
        "num_heads": backbone.num_heads,
        "mean": list(backbone.spec.mean),
        "std": list(backbone.spec.std),
        "provenance": {
            "refined_by": f"RetFiner {version('retfiner')}",
            "run_id": uuid.uuid4().hex,
            "base_weights_file": base.name,
            "base_weights_sha256": file_sha256(base),
            "losses": ", ".join(f"{n} x {w:g}" for n, w in loss_weights(settings).items()),
            "data_sha256": data["data_sha256"],
        },
        "train_pairs": data["train_pairs"],
        "validation_pairs": data["validation_pairs"],
        "lora_scale": lora_scale,
        "text_config": as_plain_json(text.config.to_diff_dict()),
        "tokenizer": tokenizer_as_text(tokenizer),
        "settings": settings,
        "given": sorted(given),
        "versions": versions(),
    }


def loss_weights(settings: Mapping[str, Any]) -> dict[str, float]:
    """Return the weight of each active loss, by settings as plain data."""
    losses = settings["losses"]
    return dict(zip(losses, settings["loss_weights"] or [1.0] * len(losses), strict=True))


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
