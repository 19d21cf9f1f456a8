"""What of a vision encoder trains, and how fast: all, the last blocks, or low-rank updates.

Layers are timm's: the embeddings are layer 0, block k is layer k + 1 and takes along what follows
the last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from timm.layers import DropPath, calculate_drop_path_rates
from timm.models import group_parameters
from torch import Tensor, nn

from retfiner.common.errors import InputError

LORA_TARGETS = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc1_g", "mlp.fc1_x", "mlp.fc2"]
"""Every matrix of every block, gated MLPs included (Dettmers et al., QLoRA, 2023)."""
_DROP_PATH = re.compile(r"(?:.*\.)?drop_path\d*")
_LORA_A, _LORA_B, _BASE = ".lora_A.default.weight", ".lora_B.default.weight", ".base_layer."


def layers_of(encoder: nn.Module) -> dict[str, int]:
    """Tell the layer of each parameter by its name: 0 for embeddings, k + 1 for block k."""
    return group_parameters(encoder, encoder.group_matcher(), reverse=True)  # type: ignore[operator]


def unfreeze_last(encoder: nn.Module, blocks: int) -> None:
    """Freeze all of an encoder but its last blocks and what follows them.

    Args:
        encoder: The vision encoder; what its ``fixed`` names stays frozen.
        blocks: How many blocks train; 0 freezes the whole encoder, and with all of them the
            embeddings train as well.

    Raises:
        InputError: If there are fewer blocks.
    """
    depth = len(encoder.blocks)  # type: ignore[arg-type]
    if blocks > depth:
        raise InputError(
            "--unfreeze_last is more than there are blocks",
            got=blocks,
            expected=f"at most {depth}",
            remedy=f"--unfreeze_last {depth} to train the whole encoder",
        )
    layers, fixed = layers_of(encoder), getattr(encoder, "fixed", ())
    for name, parameter in encoder.named_parameters():
        trains = blocks == depth or layers[name] > depth - blocks
        parameter.requires_grad_(trains and name not in fixed)


def add_lora(encoder: nn.Module, rank: int, scale: float) -> None:
    """Freeze an encoder and train low-rank updates of its blocks' matrices (Hu et al., LoRA, 2022).

    Args:
        encoder: The vision encoder; changed in place by peft.
        rank: Rank of the updates.
        scale: What the updates are multiplied by (``alpha / rank`` in the paper).

    Raises:
        InputError: If the encoder has no matrices of a ViT's blocks.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=round(scale * rank), target_modules=LORA_TARGETS)
    try:
        inject_adapter_in_model(config, encoder)
    except ValueError as error:
        raise InputError("LoRA found nothing to update in the encoder", got=error) from error


def merge_lora(state: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Add low-rank updates to the weights they update; the result has the pretrained keys.

    Args:
        state: An encoder's state with peft's LoRA keys.
        scale: As in :func:`add_lora`.

    Returns:
        W + scale * B A for every updated matrix, all else as it was.
    """
    merged = {
        key.replace(_BASE, "."): value
        for key, value in state.items()
        if not key.endswith((_LORA_A, _LORA_B))
    }
    for key in state:
        if key.endswith(_LORA_A):
            name = key.removesuffix(_LORA_A)
            update = state[name + _LORA_B].double() @ state[key].double()
            weight = merged[f"{name}.weight"]
            merged[f"{name}.weight"] = (weight.double() + scale * update).to(weight.dtype)
    return merged


def vision_groups(encoder: nn.Module, lr: float, decay: float) -> list[dict[str, Any]]:
    """Give an encoder's trainable parameters learning rates that fall from layer to layer.

    Args:
        encoder: The vision encoder.
        lr: Learning rate of the last block.
        decay: Each layer's learning rate as a share of the next one's (BEiT, MAE fine-tuning).

    Returns:
        Groups for the optimiser, the embeddings first.
    """
    of, last = layers_of(encoder), len(encoder.blocks)  # type: ignore[arg-type]
    layers: dict[int, list[Tensor]] = {}
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            layers.setdefault(of[name], []).append(parameter)
    return [
        {"params": layers[layer], "lr": lr * decay ** (last - layer)} for layer in sorted(layers)
    ]


def set_drop_path(encoder: nn.Module, rate: float) -> None:
    """Let blocks be left out in training, image by image (Huang et al., stochastic depth, 2016).

    The rate rises linearly from 0 at the first block to ``rate`` at the last, as when timm builds a
    model or MAE fine-tunes one. Draws are the global generator's, as dropout's are.

    Args:
        encoder: The vision encoder, its blocks timm's; changed in place, its weights' names kept.
        rate: Probability in [0, 1) with which each half of the last block is left out.

    Raises:
        InputError: If a block has no place for it.
    """
    blocks: Any = encoder.blocks
    for block, share in zip(blocks, calculate_drop_path_rates(rate, len(blocks)), strict=True):
        places = [n for n, _ in block.named_modules() if _DROP_PATH.fullmatch(n)]
        if not places:
            raise InputError(
                "--drop_path does not fit the backbone",
                got=f"blocks of the class {type(block).__name__}",
                expected="blocks with timm's drop_path modules",
                remedy="leave it out",
            )
        for name in places:
            block.set_submodule(name, DropPath(share).train(block.training))
