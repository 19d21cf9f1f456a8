"""From settings to a model: the parts, assembled."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from retfiner.common.cli import as_plain
from retfiner.config import RefineConfig
from retfiner.losses import LOSSES, ITMHead
from retfiner.model import RetFiner
from retfiner.text.encoder import CrossAttentionBert
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
    return RetFiner(
        backbone=backbone,
        text=text,
        mask_token_id=tokenizer.mask_token_id,
        contrastive_dim=512 if is_contrastive else None,
        itm_head=ITMHead(text.config.hidden_size) if "itm" in config.losses else None,
        temperature=config.contra_temp,
        exponential_temp=config.exponential_temp,
        duplicate_reports=config.duplicate_reports,
    )


def describe(config: RefineConfig, backbone: Backbone, text: CrossAttentionBert) -> dict[str, Any]:
    """Describe a run in plain data; each checkpoint carries it and can be read alone.

    Args:
        config: The settings.
        backbone: The vision encoder.
        text: The text encoder.
    """
    return {
        "backbone": backbone.spec.name,
        "image_size": backbone.image_size,
        "num_heads": backbone.num_heads,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "base_weights": {
            "file": config.model_weights.name,
            "sha256": file_sha256(config.model_weights),
        },
        "text_config": as_plain_json(text.config.to_diff_dict()),
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


def file_sha256(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(
            hashlib, "file_digest"
        ) else hashlib.sha256(file.read()).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions that a run's numbers depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def resolve_precision(requested: str, accelerator: str) -> str:
    """Choose the arithmetic: bfloat16 where the device is made for it.

    Args:
        requested: ``auto`` or what Lightning calls a precision.
        accelerator: ``cpu``, ``cuda`` or ``mps``, as resolved.

    Returns:
        What Lightning calls a precision. ``auto`` is bfloat16 on a GPU or CPU with bfloat16 matrix
        units, else float16 on a GPU, else float32.
    """
    if requested != "auto":
        return requested
    if accelerator == "cuda":
        # Emulated bfloat16 is slower than float16, so emulation does not count.
        return "bf16-mixed" if torch.cuda.is_bf16_supported(False) else "16-mixed"
    if accelerator == "cpu":
        return "bf16-mixed" if _cpu_has_bfloat16_units() else "32-true"
    return "32-true"


def _cpu_has_bfloat16_units() -> bool:
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
