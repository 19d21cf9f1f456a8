"""What of a model trains in refinement, and how its activations are kept."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from retfiner.losses import LOSSES, Loss
from retfiner.model import RetFiner
from retfiner.vision.adaptation import add_lora, set_drop_path, unfreeze_last


def adapt(
    model: RetFiner,
    losses: Iterable[str],
    *,
    unfreeze_last_blocks: int | None = None,
    freeze_text: bool = False,
    lora_rank: int | None = None,
    lora_scale: float | None = None,
    fixed_temp: bool = False,
    drop_path: float = 0.0,
    gradient_checkpointing: bool = False,
) -> None:
    """Choose what of a model trains, and how activations are kept.

    Args:
        model: The model; changed in place.
        losses: Names of the active losses: what none of them reads is frozen.
        unfreeze_last_blocks: Vision blocks that train, counted from the last; None for all.
        freeze_text: Whether the text encoder keeps its pretrained weights: cross-attention and what
            predicts words from its states train all the same.
        lora_rank: Rank of updates that train in place of the vision encoder's weights.
        lora_scale: What these are multiplied by.
        fixed_temp: Whether the contrastive temperature stays what it is.
        drop_path: Stochastic depth of the last vision block in training.
        gradient_checkpointing: Whether activations are computed again in the backward pass.

    Raises:
        InputError: If more blocks are to train than there are, or blocks know no stochastic depth.
    """
    encoder = model.vision_encoder
    if unfreeze_last_blocks is not None:
        unfreeze_last(encoder, unfreeze_last_blocks)
    if freeze_text:
        for name, parameter in model.multimodal_encoder.named_parameters():
            parameter.requires_grad_(is_new_text(name))
    if lora_rank is not None and lora_scale is not None:
        add_lora(encoder, lora_rank, lora_scale)
    if fixed_temp:
        model.contra_temp.requires_grad_(False)
    if drop_path:
        set_drop_path(encoder, drop_path)
    if gradient_checkpointing:
        checkpoint_activations(model)
    freeze_unread(model, [LOSSES[name]() for name in losses])


def freeze_unread(model: RetFiner, losses: Iterable[Loss]) -> None:
    """Freeze what no active loss reads: processes would wait for a gradient that never comes."""
    losses = list(losses)
    text = model.multimodal_encoder
    unread: list[nn.Parameter] = []
    if model.backbone.norm is not None and not model.backbone.spec.text_norm:
        unread += model.backbone.norm.parameters()  # the text side sees the last block's output
    if not any(loss.predicts_tokens for loss in losses):
        embedding = text.get_input_embeddings().weight  # tied to the prediction, and read
        unread += [p for p in text.cls.parameters() if p is not embedding]
    if not any(loss.uses_fusion for loss in losses):
        unread += [p for name, p in text.named_parameters() if ".crossattention." in name]
    if not any(loss.trains_similarity for loss in losses):
        unread += [p for name, p in model.named_parameters() if name.startswith("contra_")]
    for parameter in unread:
        parameter.requires_grad_(False)


def is_new_text(name: str) -> bool:
    """Say whether a parameter of the text encoder is new: no pretrained BERT has it, or must.

    Sentence encoders come without what predicts words; its matrix is the embedding.
    """
    return (
        ".crossattention." in name or "predictions.transform" in name or "predictions.bias" in name
    )


def checkpoint_activations(model: RetFiner) -> None:
    """Keep only each block's input for the backward pass, in both encoders, and compute the rest.

    Numbers stay the same, dropout included; memory falls, a step takes about a third longer.
    """
    model.vision_encoder.set_grad_checkpointing()  # type: ignore[operator]
    model.multimodal_encoder.checkpoint_layers = True
