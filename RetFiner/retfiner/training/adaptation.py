"""What of the vision encoder trains, and how fast: all, the last blocks, or low-rank updates.

Blocks are known by their parameters' names (``blocks.7.…`` in a plain ViT, ``encoder.7.…`` in
MIRAGE); whatever comes before the first block is layer 0, whatever follows the last goes with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from retfiner.common.errors import InputError
from retfiner.losses import LOSSES, Loss
from retfiner.model import RetFiner

_BLOCK = re.compile(r"(?:^|\.)(?:blocks|encoder)\.(\d+)\.")
_AFTER = re.compile(r"^(?:norm|fc_norm|proj|head)\.")
LORA_TARGETS = r"(?:.*\.)?(?:blocks|encoder)\.\d+\.(?:attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)"
"""Every matrix of every block, as LoRA works best (Dettmers et al., QLoRA, 2023)."""
_LORA_A, _LORA_B, _BASE = ".lora_A.default.weight", ".lora_B.default.weight", ".base_layer."


def adapt(
    model: RetFiner,
    losses: Iterable[str],
    *,
    unfreeze_last_blocks: int | None = None,
    lora_rank: int | None = None,
    lora_scale: float | None = None,
    layer_decay: float = 1.0,
    gradient_checkpointing: bool = False,
) -> None:
    """Choose what of a model trains, and how activations are kept.

    Args:
        model: The model; changed in place.
        losses: Names of the active losses: what none of them reads is frozen.
        unfreeze_last_blocks: Vision blocks that train, counted from the last; None for all.
        lora_rank: Rank of updates that train in place of the vision encoder's weights.
        lora_scale: What these are multiplied by.
        layer_decay: Learning rate of each vision block as a share of the next one's.
        gradient_checkpointing: Whether activations are computed again in the backward pass.

    Raises:
        InputError: If the encoder has no blocks to choose from.
    """
    encoder = model.vision_encoder
    if unfreeze_last_blocks is not None:
        unfreeze_last(encoder, unfreeze_last_blocks)
    if lora_rank is not None and lora_scale is not None:
        add_lora(encoder, lora_rank, lora_scale)
    if layer_decay != 1:
        depth_of(encoder)  # an encoder without blocks is refused here, not later
    if gradient_checkpointing:
        checkpoint_activations(model)
    freeze_unread(model, [LOSSES[name]() for name in losses])


def freeze_unread(model: RetFiner, losses: Iterable[Loss]) -> None:
    """Freeze what no active loss reads: it would get no gradient, for which processes would wait.

    Args:
        model: The model.
        losses: The active losses.
    """
    losses = list(losses)
    text = model.multimodal_encoder
    unread: list[nn.Parameter] = []
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


def layer_of(name: str, depth: int) -> int:
    """Give the layer a parameter of the encoder belongs to: 0 for embeddings, k + 1 for block k.

    Args:
        name: The parameter's name within the encoder.
        depth: Number of blocks.
    """
    match = _BLOCK.search(name)
    if match:
        return int(match[1]) + 1
    return depth if _AFTER.match(name) else 0


def depth_of(encoder: nn.Module) -> int:
    """Count an encoder's blocks.

    Raises:
        InputError: If it has none that are known as such.
    """
    names = (name for name, _ in encoder.named_parameters())
    blocks = {int(m[1]) for name in names if (m := _BLOCK.search(name))}
    if not blocks:
        raise InputError(
            "the vision encoder has no numbered blocks",
            expected="parameters named blocks.<k>.… or encoder.<k>.…",
            remedy="leave --unfreeze_last, --layer_decay and --lora_rank out",
        )
    return 1 + max(blocks)


def blocks_of(encoder: nn.Module) -> list[nn.Module]:
    """List an encoder's blocks, the first one first."""
    pattern = re.compile(r"(?:^|\.)(?:blocks|encoder)\.\d+$")
    return [module for name, module in encoder.named_modules() if pattern.search(name)]


def unfreeze_last(encoder: nn.Module, blocks: int) -> None:
    """Freeze all of an encoder but its last blocks and what follows them.

    Args:
        encoder: The vision encoder.
        blocks: How many blocks train; 0 freezes the whole encoder.

    Raises:
        InputError: If there are fewer blocks.
    """
    depth = depth_of(encoder)
    if blocks > depth:
        raise InputError(
            "--unfreeze_last is more than there are blocks",
            got=blocks,
            expected=f"at most {depth}",
            remedy="leave it out to train the whole encoder",
        )
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(blocks > 0 and layer_of(name, depth) > depth - blocks)


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

    depth_of(encoder)
    config = LoraConfig(r=rank, lora_alpha=round(scale * rank), target_modules=LORA_TARGETS)
    try:
        inject_adapter_in_model(config, encoder)
    except ValueError as error:
        raise InputError("LoRA found nothing to update in the encoder", got=error) from error


def has_lora(state: Mapping[str, Tensor]) -> bool:
    """Say whether a state holds low-rank updates."""
    return any(key.endswith(_LORA_A) for key in state)


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
    depth = depth_of(encoder)
    layers: dict[int, list[Tensor]] = {}
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            layers.setdefault(layer_of(name, depth), []).append(parameter)
    return [
        {"params": layers[layer], "lr": lr * decay ** (depth - layer)} for layer in sorted(layers)
    ]


def checkpoint_activations(model: RetFiner) -> None:
    """Compute activations of both encoders again in the backward pass, to save memory.

    Args:
        model: The model; changed in place.
    """
    checkpoint_blocks(model.vision_encoder)
    model.multimodal_encoder.checkpoint_layers = True


def checkpoint_blocks(encoder: nn.Module) -> None:
    """Keep only each block's input for the backward pass and compute the rest again.

    Numbers stay the same, dropout included; memory falls, a step takes about a third longer.

    Args:
        encoder: The vision encoder; its keys stay as they are.
    """
    depth_of(encoder)
    for block in blocks_of(encoder):
        block.forward = _checkpointed(block.forward)


def _checkpointed(forward: Any) -> Any:
    def again(*arguments: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*arguments, **named)
        return checkpoint(forward, *arguments, use_reentrant=False, **named)

    return again
