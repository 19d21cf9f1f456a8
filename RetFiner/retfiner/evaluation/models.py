"""A refined model at work: where it computes, and in which arithmetic."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from retfiner.common.devices import resolve_device
from retfiner.common.errors import InputError
from retfiner.evaluation.config import EvaluateConfig
from retfiner.export.loading import LoadedModel, read_model
from retfiner.training.precision import resolve_precision
from retfiner.vision import evaluation_transform
from retfiner.vision.preprocessing import EvaluationTransform


@dataclass(frozen=True)
class Evaluated:
    """A model and how it is run.

    Attributes:
        loaded: The model, its tokenizer and its description.
        device: Where it computes.
        precision: What Lightning calls the arithmetic.
    """

    loaded: LoadedModel
    device: torch.device
    precision: str

    @property
    def transform(self) -> EvaluationTransform:
        """What turns a B-scan into the model's input."""
        return evaluation_transform(self.loaded.model.backbone)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which the model is called."""
        if self.precision == "32-true":
            return nullcontext()
        dtype = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    def require(self, loss: str, purpose: str) -> None:
        """Refuse a model that was not trained for what it is asked.

        Raises:
            InputError: If it was refined without this objective.
        """
        losses = self.loaded.description["settings"]["losses"]
        if loss not in losses:
            raise InputError(
                f"the model cannot be used for {purpose}",
                got=f"a refinement with {' '.join(losses)}",
                expected=f"one with {loss} among its --losses",
            )


def open_model(config: EvaluateConfig) -> Evaluated:
    """Read the model that the settings name.

    Raises:
        InputError: If it cannot be read, or there is no such device.
    """
    device = resolve_device(config.device)
    loaded = read_model(config.model, device, config.text_encoder)
    return Evaluated(loaded, device, resolve_precision(config.precision, device.type))
