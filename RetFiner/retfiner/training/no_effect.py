"""Settings of the user's that find nothing to act on: a run says so, and trains all the same.

What would train another model than was asked for is an error (:mod:`retfiner.config`). What merely
changes nothing stands in nobody's way, nor in that of a script with the same flags for several
runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from retfiner.data.custom import takes
from retfiner.training.monitor import LAST
from retfiner.training.recipe import PUBLISHED, Recipe

_ALWAYS_CHOSEN = {f.name for f in fields(Recipe) if getattr(PUBLISHED, f.name) is not None}


def no_effect_notes(settings: Mapping[str, Any], given: Collection[str]) -> list[str]:
    """Say which settings have no effect, and why.

    Args:
        settings: All of the run's by name, as its ``config.yaml`` has them.
        given: Names of those that the user set. Where a whole recipe is among them, a
            ``config.yaml`` was given back, and the run that wrote it has said this.
    """
    if set(given) >= _ALWAYS_CHOSEN:
        return []
    acting = {name for name in given if settings[name] != 0}  # 0 of these switches off
    return [
        f"note: --{name} {_shown(settings[name])}has no effect: {why}"
        for name, why in _idle(settings).items()
        if name in acting
    ]


def _idle(settings: Mapping[str, Any]) -> dict[str, str]:
    """Say of each setting that would have no effect, whoever set it, why."""
    found = _idle_in_losses(set(settings["losses"]))
    if settings["unfreeze_last"] == 0:
        found["vision_lr"] = "with --unfreeze_last 0 the encoder is frozen"
    if settings["lora_rank"] is not None:
        found["vision_lr"] = "the updates of --lora_rank are new, and train at --lr"
    if settings["monitor"][0] == LAST:
        found["patience"] = (
            "the last epoch is kept; --monitor loss, or another metric, ends a run that gets no"
            " better"
        )
    if settings["val_csv"] is not None:
        found["val_fraction"] = "validation is on the table of --val_csv"
    elif settings["dataset"] is not None and takes(settings["dataset"], "split"):
        found["val_fraction"] = "the class of --dataset makes its own parts, by its `split`"
    if settings["num_workers"] == 0:
        found["worker_start"] = "with --num_workers 0 none starts"
    return found


def _idle_in_losses(losses: Collection[str]) -> dict[str, str]:
    found = {}
    if not {"itc", "itm"} & set(losses):
        found["contra_temp"] = found["duplicate_reports"] = (
            "without itc and itm nothing is compared"
        )
    if "itc" not in losses:
        found["exponential_temp"] = "itc alone learns the temperature"
    if "itm" not in losses:
        found["itm_negatives"] = "itm alone draws wrong pairs"
    if set(losses) == {"itc"}:
        found["fusion_warmup_steps"] = "there is no loss beside itc"
    return found


def _shown(value: object) -> str:
    """Put a value behind its flag; a switch has none."""
    return "" if value is True else f"{value} "
