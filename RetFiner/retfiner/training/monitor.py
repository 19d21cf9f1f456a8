"""What decides which epoch is kept, and when a run has waited long enough.

The sum of the losses falls while a vocabulary is learned, whatever the encoder does, and a contrast
may rise while the encoder gains: wordings of one finding are each other's negatives. So neither is
the default; see ``docs/training.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from retfiner.common.errors import InputError
from retfiner.losses import LOSSES
from retfiner.training.recall import RECALL_AT

if TYPE_CHECKING:
    import pandas as pd

LAST = "last"
"""No metric: the last epoch is kept, and nothing ends a run early."""


class Monitor(NamedTuple):
    """A validation metric to go by.

    Attributes:
        name: What the user calls it.
        column: Its column in ``metrics.csv``; None for :data:`LAST`.
        mode: ``min`` or ``max``: which value is best.
    """

    name: str
    column: str | None
    mode: str

    @property
    def file(self) -> str:
        """Name of the checkpoint it keeps beside the first monitor's ``best-model.ckpt``."""
        return "best-" + self.name.replace("@", "-")

    def best_row(self, table: pd.DataFrame) -> pd.Series:
        """Return the row of an epoch table that this monitor keeps; the first of equals."""
        if self.column is None:
            return table.iloc[-1]
        values = table[self.column]
        return table.loc[values.idxmin() if self.mode == "min" else values.idxmax()]

    def is_better(self, value: float, than: float | None) -> bool:
        """Say whether a value beats the best so far; every value beats None."""
        if than is None or self.column is None:
            return True
        return value < than if self.mode == "min" else value > than


def find_monitors(
    names: Sequence[str], losses: Sequence[str], is_contrastive: bool, has_guard: bool
) -> list[Monitor]:
    """Turn names into monitors: the first decides what is kept and when a run stops.

    Args:
        names: ``last``, ``guard``, ``loss``, a loss, or a recall such as
            ``image_to_text_recall@5``.
        losses: The active losses.
        is_contrastive: Whether recall is measured.
        has_guard: Whether the encoder is watched on validation patients.

    Raises:
        InputError: If a name is unknown, twice there, or not measured in this run.
    """
    recalls = [f"{way}_recall@{k}" for way in ("image_to_text", "text_to_image") for k in RECALL_AT]
    measured = {LAST: Monitor(LAST, None, "max")}
    measured |= {name: Monitor(name, f"val/{name}", "min") for name in ("loss", *losses)}
    if has_guard:
        measured["guard"] = Monitor("guard", "guard/refined", "max")
    if is_contrastive:
        measured |= {name: Monitor(name, f"val/{name}", "max") for name in recalls}
    known = {LAST, "guard", "loss", *LOSSES, *recalls}
    for name in names:
        if name not in measured:
            raise InputError(
                "--monitor is not measured in this run" if name in known
                else "--monitor is no metric",
                got=name,
                expected=" ".join(sorted(measured)),
                remedy="the guard needs tables with patients, and recall --losses itc"
                if name in known
                else "one of these, or several: the first decides, the others are kept beside it",
            )  # fmt: skip
    if len(set(names)) != len(names):
        raise InputError("--monitor names a metric twice", got=" ".join(names))
    return [measured[name] for name in names]
