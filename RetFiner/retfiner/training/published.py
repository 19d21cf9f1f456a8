"""The settings of the published refinement, by the names of ``train.py``'s flags.

Sources: [P] the paper (Fecso et al., RetFiner, MICCAI 2025), [C] the released training code.
What follows from neither is not here: how data are split, how often files are written.
``docs/published.md`` says for each detail of [C] what we do by default, and why.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

PUBLISHED: dict[str, Any] = {
    # Objectives
    "losses": ["itc", "itm", "mlm", "gm"],  # [P]
    "loss_weights": None,  # [P] a sum with equal weights
    "contra_temp": 0.07,  # [P]
    "exponential_temp": False,  # [C]
    "fixed_temp": True,  # [C] on a GPU the parameter is no leaf, and the optimiser never gets it
    "duplicate_reports": "ignore",  # [C] targets and negatives by place in the batch alone
    "random_token_from": 106,  # [C] ids 106 to 30,521 of bert-base-uncased
    "redraw_masks": True,  # [C]
    # Data
    "max_text_tokens": 30,  # [P]
    "train_interpolation": "bicubic",  # [C]
    # Optimisation
    "lr": 1e-4,  # [P] one rate for everything
    "vision_lr": None,
    "text_lr": None,
    "layer_decay": 1.0,
    "lr_schedule": "constant",  # [C]
    "warmup_steps": 0,  # [C]
    "weight_decay": 0.01,  # [C] torch's default
    "batch_size": 128,  # [P]
    "max_epochs": 20,  # [P]
    "patience": 3,  # [P] on the validation loss
    "unfreeze_last": None,  # [P] every weight of both encoders trains
    "lora_rank": None,
    "lora_alpha": None,
    "drop_path": 0.1,  # [C] of RETFound's ViT alone
    # Hardware
    "precision": "16-mixed",  # [P] float16, which only a GPU is made for
}
"""Every published value that differs from our default, or that a recipe decides."""


def published(backbone: str, losses: Collection[str], accelerator: str) -> dict[str, Any]:
    """Select from :data:`PUBLISHED` what a run can be given: flags without effect are errors.

    Args:
        backbone: Name of the backbone; RETFound's ViT alone has stochastic depth.
        losses: Names of the objectives that are on.
        accelerator: ``cpu``, ``cuda`` or ``mps``; float16 needs ``cuda``.
    """
    idle = set()
    if backbone != "RETFound":
        idle.add("drop_path")
    if "itc" not in losses:
        idle.add("fixed_temp")
    if not {"mlm", "gm"} & set(losses):
        idle |= {"random_token_from", "redraw_masks"}
    if accelerator != "cuda":
        idle.add("precision")
    return {name: value for name, value in PUBLISHED.items() if name not in idle}
