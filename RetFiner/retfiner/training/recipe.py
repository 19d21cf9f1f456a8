"""How to train, by how much there is to train on: the recipe, and why it is that one.

A hundred pairs and a hundred thousand ask for other learning rates, batches and lengths. What the
user does not set, the recipe does; :data:`PUBLISHED` is the run of the paper whatever the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

from retfiner.training.monitor import LAST

FEW_PATIENTS = 30
"""Below so many validation patients the guard says nothing: see ``docs/evidence.md``."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings that depend on the data; named and meant as in ``train.py --help``."""

    batch_size: int
    max_epochs: int
    lr: float
    vision_lr: float
    text_lr: float
    lr_schedule: Literal["constant", "cosine"]
    warmup_steps: int
    itm_negatives: Literal["hard", "uniform"]
    monitor: list[str]
    patience: int


PUBLISHED = Recipe(
    batch_size=128,
    max_epochs=20,
    lr=1e-4,
    vision_lr=1e-4,
    text_lr=1e-4,
    lr_schedule="constant",
    warmup_steps=0,
    itm_negatives="hard",
    monitor=["loss"],
    patience=3,
)
"""The published run (MICCAI 2025)."""


class Sizes(NamedTuple):
    """What a recipe goes by.

    Attributes:
        pairs: Pairs to train on.
        patients: Patients among them; None where they are unknown.
        validation_patients: Patients to validate on; None where they are unknown.
        processes: How many processes share a batch.
    """

    pairs: int
    patients: int | None
    validation_patients: int | None
    processes: int


class Choice(NamedTuple):
    """A recipe, and three lines that say what was chosen and why."""

    recipe: Recipe
    lines: list[str]


def choose_recipe(
    name: Literal["auto", "published"], given: Mapping[str, Any], sizes: Sizes
) -> Choice:
    """Choose what the user has not set.

    Args:
        name: ``auto``, or ``published`` for :data:`PUBLISHED`.
        given: What the user set, by the names of :class:`Recipe`; what follows from it follows it.
        sizes: How much data there is.

    Raises:
        TypeError: If a name of ``given`` is none of the recipe's.
    """
    lr = given.get("lr", PUBLISHED.lr)
    if name == "published":
        recipe = replace(PUBLISHED, vision_lr=lr, text_lr=lr)
    else:
        recipe = _by_size(lr, given, sizes)
    recipe = replace(recipe, **given)
    return Choice(recipe, _explain(name, recipe, given, sizes))


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


FEW_PAIRS, MANY_PAIRS = 300, 30_000
"""Up to the first, a pretrained encoder learns slowly; from the second, as in the paper."""
FEW_STEPS = 200
"""Optimiser steps below which a run does not end, up to :data:`MOST_EPOCHS`."""
MOST_EPOCHS = 40


def _by_size(lr: float, given: Mapping[str, Any], sizes: Sizes) -> Recipe:
    """Choose by the number of pairs; see ``docs/evidence.md`` for what was measured."""
    batch_size = given.get("batch_size", _batch_size(sizes))
    steps = math.ceil(sizes.pairs / (batch_size * sizes.processes))
    pretrained = lr * _share_of_rate(sizes.pairs)
    epochs = min(MOST_EPOCHS, max(PUBLISHED.max_epochs, math.ceil(FEW_STEPS / steps)))
    can_tell = sizes.validation_patients is not None and sizes.validation_patients >= FEW_PATIENTS
    return Recipe(
        batch_size=batch_size,
        max_epochs=epochs,
        lr=lr,
        vision_lr=pretrained,
        text_lr=lr,
        lr_schedule="cosine",
        warmup_steps=min(100, steps * epochs // 20),
        itm_negatives="uniform",
        monitor=["guard" if can_tell else LAST],
        patience=5,
    )


def _batch_size(sizes: Sizes) -> int:
    """Return a power of two from 16 to 128 that makes at least eight steps an epoch, if it can."""
    wanted = max(1, sizes.pairs // (8 * sizes.processes))
    return min(128, max(16, 2 ** int(math.log2(wanted))))


def _share_of_rate(pairs: int) -> float:
    """Return the learning rate of pretrained weights as a share of that of new ones.

    From a tenth to all of it, in even steps of the logarithm of the number of pairs.
    """
    way = math.log(pairs / FEW_PAIRS) / math.log(MANY_PAIRS / FEW_PAIRS)
    return float(10 ** (min(1.0, max(0.0, way)) - 1))


def _explain(name: str, recipe: Recipe, given: Mapping[str, Any], sizes: Sizes) -> list[str]:
    steps = recipe.max_epochs * math.ceil(sizes.pairs / (recipe.batch_size * sizes.processes))
    people = "" if sizes.patients is None else f" of {sizes.patients} patients"
    yours = f"; yours: {', '.join(sorted(given))}" if given else ""
    rates = f"learning rate {recipe.lr:g}, pretrained ViT {recipe.vision_lr:.2g}"
    if recipe.text_lr != recipe.lr:
        rates += f", BERT {recipe.text_lr:.2g}"
    kept = f"kept: the epoch that {recipe.monitor[0]} finds best"
    if recipe.monitor[0] == LAST:
        held = sizes.validation_patients
        kept = "kept: the last epoch" + (
            f", since {held} validation patients cannot tell which is best"
            if held is not None and held < FEW_PATIENTS
            else ""
        )
    return [
        f"{name}, for {sizes.pairs} pairs{people}{yours}",
        f"{recipe.batch_size} pairs a batch, {recipe.max_epochs} epochs, {steps} steps, "
        f"{recipe.lr_schedule}; {rates}",
        kept,
    ]
