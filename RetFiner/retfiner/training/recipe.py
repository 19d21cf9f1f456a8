"""How to train, by how much there is to train on: the recipe, and why it is that one.

A hundred pairs and a hundred thousand ask for other learning rates, batches and lengths. What the
user does not set, the recipe does; :data:`PUBLISHED` is the run of the paper whatever the data.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

from retfiner.training.monitor import LAST


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings that depend on the data; named and meant as in ``train.py --help``."""

    batch_size: int
    max_epochs: int
    lr: float
    vision_lr: float
    text_lr: float
    unfreeze_last: int | None
    lora_rank: int | None
    lr_schedule: Literal["constant", "cosine"]
    warmup_steps: int
    fusion_warmup_steps: int
    itm_negatives: Literal["hard", "uniform"]
    monitor: list[str]
    patience: int
    fixed_temp: bool = False
    duplicate_reports: Literal["shared", "ignore", "similar"] = "shared"
    random_token_from: int = 0
    redraw_masks: bool = False
    train_interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    drop_path: float = 0.0
    augment: bool = False
    contrast_batch: int | None = None

    @property
    def pairs_per_batch(self) -> int:
        """Most pairs that the losses of one device see together."""
        return self.contrast_batch or self.batch_size


PUBLISHED = Recipe(
    batch_size=128,  # [P]
    max_epochs=20,  # [P]
    lr=1e-4,  # [P] one rate for everything
    vision_lr=1e-4,
    text_lr=1e-4,
    unfreeze_last=None,  # [P] every weight of both encoders trains
    lora_rank=None,
    lr_schedule="constant",  # [C]
    warmup_steps=0,  # [C]
    fusion_warmup_steps=0,
    itm_negatives="hard",  # [P]
    monitor=["loss"],  # [P]
    patience=3,  # [P]
    fixed_temp=True,  # [C] on a GPU the parameter is no leaf, and the optimiser never gets it
    duplicate_reports="ignore",  # [C] targets and negatives go by the place in the batch alone
    random_token_from=106,  # [C] ids 106 to 30,521 of bert-base-uncased
    redraw_masks=True,  # [C]
    train_interpolation="bicubic",  # [C]
    drop_path=0.1,  # [C] of RETFound's ViT alone
)
"""The published run. [P]: the paper (MICCAI 2025); [C]: the released training code.

``docs/published.md`` says for each detail of [C] what we do by default, and why.
"""


class Basis(NamedTuple):
    """What a recipe goes by.

    Attributes:
        backbone: The backbone's name.
        blocks: How many blocks it has.
        text_from_reports: Whether the text encoder has read nothing but a table's reports.
        is_adapted: Whether the user chose rates that fall from block to block.
        pairs: Pairs to train on.
        patients: Patients among them; None where they are unknown.
        validation_patients: Patients to validate on; None where they are unknown.
        batches_per_step: Batches that make an optimiser step: those of all processes, accumulated.
        losses: Names of the losses that weigh something.
        learns_temperature: Whether the user chose how the temperature is learned.
    """

    backbone: str
    blocks: int
    text_from_reports: bool
    is_adapted: bool
    pairs: int
    patients: int | None
    validation_patients: int | None
    batches_per_step: int
    losses: Collection[str] = ("itc", "itm", "mlm", "gm")
    learns_temperature: bool = False


class Choice(NamedTuple):
    """A recipe, and three lines that say what was chosen and why."""

    recipe: Recipe
    lines: list[str]


def choose_recipe(
    name: Literal["auto", "published"],
    given: Mapping[str, Any],
    basis: Basis,
    resumed: Mapping[str, Any] | None = None,
) -> Choice:
    """Choose what the user has not set.

    Args:
        name: ``auto``, or ``published`` for :data:`PUBLISHED`.
        given: What the user set, by the names of :class:`Recipe`; what follows from it follows it.
        basis: What to go by.
        resumed: What was chosen when the run at hand began, if it goes on: it stays.

    Raises:
        TypeError: If a name of ``given`` is none of the recipe's.
    """
    if name == "published":
        lr = given.get("lr", PUBLISHED.lr)
        depth = PUBLISHED.drop_path if basis.backbone == "RETFound" else 0.0
        first = (
            5 if basis.text_from_reports else PUBLISHED.random_token_from
        )  # after special tokens
        chosen = {"vision_lr": lr, "text_lr": lr, "drop_path": depth, "random_token_from": first}
        size = min(PUBLISHED.batch_size, given.get("contrast_batch") or PUBLISHED.batch_size)
        recipe = replace(PUBLISHED, **chosen, batch_size=size)
    else:
        recipe = _by_size(given, basis)
    recipe = replace(recipe, **{**_without_effect(given, basis), **(resumed or {}), **given})
    return Choice(recipe, _explain(name, recipe, given, basis))


def train_interpolation(name: str, given: Mapping[str, Any]) -> Literal["bilinear", "bicubic"]:
    """Say how training images are resized: it is known before the data are."""
    default = (PUBLISHED if name == "published" else Recipe).train_interpolation
    return given.get("train_interpolation", default)


def schedule_notes(recipe: Recipe, steps: int, epochs_before: int | None = None) -> list[str]:
    """Say where the learning rate's course is not what one would think.

    Args:
        recipe: How the run trains.
        steps: Its optimiser steps.
        epochs_before: ``max_epochs`` when a resumed run began.
    """
    notes = []
    if recipe.warmup_steps >= steps:
        notes.append(
            f"warning: the warm-up of {recipe.warmup_steps} steps is as long as the run of {steps}"
            f" or longer, so the learning rate is never reached; try --warmup_steps {steps // 10}"
        )
    resumed = epochs_before is not None and epochs_before != recipe.max_epochs
    if resumed and recipe.lr_schedule == "cosine":
        notes.append(
            f"note: the cosine was to end after {epochs_before} epochs and now ends after"
            f" {recipe.max_epochs}: the learning rate jumps where the run goes on, and the result"
            " is not that of one run of this length"
        )
    return notes


def settings_of(config: Any) -> dict[str, Any]:
    """Return those of a configuration's settings that a recipe has as well and the user set."""
    named = {field.name: getattr(config, field.name) for field in fields(Recipe)}
    return {name: value for name, value in named.items() if value is not None}


FEW_PAIRS, MANY_PAIRS = 1_000, 30_000
"""Below the first, pretrained weights mostly stay as they are; from the second, as in the paper."""
FEW_PAIRS_RANK = 8
"""Rank of the updates of the vision encoder where pairs are few."""
FEW_PATIENTS = 30
"""Below so many validation patients the guard says nothing."""
LEAST_STEPS, LEAST_EPOCHS, MOST_EPOCHS = 90, 8, 20


def _by_size(given: Mapping[str, Any], basis: Basis) -> Recipe:
    """Choose by the number of pairs; ``docs/evidence.md`` tells what was measured."""
    is_few, is_many = basis.pairs < FEW_PAIRS, basis.pairs >= MANY_PAIRS
    batch_size = given.get("batch_size", _batch_size(given, basis))
    together = given.get("contrast_batch", batch_size)
    steps = math.ceil(basis.pairs / (together * basis.batches_per_step))
    epochs = MOST_EPOCHS
    if is_few:
        epochs = min(MOST_EPOCHS, max(LEAST_EPOCHS, math.ceil(LEAST_STEPS / steps)))
    whole = steps * given.get("max_epochs", epochs)
    many = _way(basis.pairs, FEW_PAIRS, MANY_PAIRS)
    lr = given.get("lr", 10 ** -(3 + many))
    pretrained = lr / 10 if is_few else lr * 10 ** (many - 1)
    text_lr = pretrained
    if is_few:  # a BERT that knows more than these reports stays as it is
        text_lr = lr if basis.text_from_reports else 0.0
    chosen = basis.is_adapted or bool({"unfreeze_last", "lora_rank"} & given.keys())
    protects = is_few and not chosen
    own_rate = given.get("vision_lr")  # of weights, which low-rank updates leave as they are
    can_tell = basis.validation_patients is not None and basis.validation_patients >= FEW_PATIENTS
    return Recipe(
        batch_size=batch_size,
        max_epochs=epochs,
        lr=lr,
        vision_lr=pretrained,
        text_lr=text_lr,
        unfreeze_last=math.ceil(basis.blocks / 3) if protects and own_rate else None,
        lora_rank=FEW_PAIRS_RANK if protects and own_rate is None else None,
        lr_schedule="cosine",
        warmup_steps=min(100, whole // 15),
        fusion_warmup_steps=whole // 2 if is_few else min(500, whole // 10),
        itm_negatives="hard" if is_many else "uniform",
        monitor=["guard" if can_tell else LAST],
        patience=5,
        augment=not is_many,
    )


def _without_effect(given: Mapping[str, Any], basis: Basis) -> dict[str, Any]:
    """Return what of a recipe finds nothing to act on in a run, switched off.

    A run's ``config.yaml`` holds all of a recipe, and is to be given back: there, whoever sets what
    has no effect is told so.
    """
    off: dict[str, Any] = {}
    if "itc" not in basis.losses:  # nothing else trains the encoder meanwhile, or the temperature
        off |= {"fusion_warmup_steps": 0, "fixed_temp": False}
    if basis.learns_temperature:
        off["fixed_temp"] = False
    if not {"mlm", "gm"} & set(basis.losses):
        off |= {"random_token_from": 0, "redraw_masks": False}
    if set(basis.losses) == {"itc"}:  # alone all the way: there is nothing to wait for
        off["fusion_warmup_steps"] = 0
    if 0 in (given.get("vision_lr"), given.get("unfreeze_last")):
        off["drop_path"] = 0.0  # noise in an encoder that cannot learn to bear it
    return off


def _batch_size(given: Mapping[str, Any], basis: Basis) -> int:
    """Return a power of two from 16 to 128 that makes at least sixteen steps an epoch, if it can.

    A batch of 128 from 80 pairs would be one step an epoch.
    """
    wanted = max(1, basis.pairs // (16 * basis.batches_per_step))
    return min(128, max(16, 2 ** int(math.log2(wanted))), given.get("contrast_batch") or 128)


def _way(value: float, low: float, high: float) -> float:
    """Say how far a value is on the way from low to high, by its logarithm, in [0, 1]."""
    return min(1.0, max(0.0, math.log(value / low) / math.log(high / low)))


def _explain(name: str, recipe: Recipe, given: Mapping[str, Any], basis: Basis) -> list[str]:
    steps = recipe.max_epochs * math.ceil(
        basis.pairs / (recipe.pairs_per_batch * basis.batches_per_step)
    )
    people = "" if basis.patients is None else f" of {basis.patients} patients"
    yours = f"; yours: {', '.join(sorted(given))}" if given else ""
    rate = recipe.vision_lr
    wait = recipe.fusion_warmup_steps
    alone = f", by ITC alone up to step {wait}" if wait else ""
    if recipe.lora_rank is not None:  # they are new, and train like what is new
        what, rate = f"updates of rank {recipe.lora_rank} of the encoder train", recipe.lr
    elif 0 in (recipe.vision_lr, recipe.unfreeze_last):
        what, rate = "the encoder is frozen", 0.0
    elif recipe.unfreeze_last is None:
        what = "the whole encoder trains"
    else:
        what = f"the last {recipe.unfreeze_last} of {basis.blocks} blocks train"
    encoder = f"{what} at {rate:.2g}{alone}" if rate else what
    text = f"BERT at {recipe.text_lr:.2g}" if recipe.text_lr else "BERT stays as it is"
    kept = f"kept: the epoch that {recipe.monitor[0]} finds best"
    if recipe.monitor[0] == LAST:
        held = basis.validation_patients
        kept = "kept: the last epoch"
        if held is not None and held < FEW_PATIENTS:
            kept += f", since {held} validation patients cannot tell which is best"
    return [
        f"{name}, for {basis.pairs} pairs{people}{yours}",
        f"{recipe.max_epochs} epochs of {recipe.pairs_per_batch} pairs a batch, {steps} steps; "
        f"{encoder};",
        f"{text}, what is new at {recipe.lr:.2g}; {kept}",
    ]
