"""When a run has waited long enough for a better validation loss."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.callbacks import EarlyStopping


class ResumableEarlyStopping(EarlyStopping):
    """Stop when the validation loss does not fall any more; a run that goes on may wait longer."""

    def __init__(self, epochs: int) -> None:
        super().__init__("val/loss", patience=epochs, mode="min")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the epochs waited so far, but with the patience asked for now."""
        super().load_state_dict(dict(state_dict, patience=self.patience))
