"""When a run has waited long enough for a better epoch."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.callbacks import EarlyStopping

from retfiner.training.monitor import Monitor


class ResumableEarlyStopping(EarlyStopping):
    """Stop when a metric gets no better any more; a run that goes on may wait longer."""

    def __init__(self, monitor: Monitor, epochs: int) -> None:
        assert monitor.column is not None
        super().__init__(monitor.column, patience=epochs, mode=monitor.mode)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the epochs waited so far, but with the patience asked for now."""
        super().load_state_dict(dict(state_dict, patience=self.patience))
