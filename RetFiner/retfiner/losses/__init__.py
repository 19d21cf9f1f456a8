"""The refinement objectives: one file each, and the list of them.

To add one, write ``losses/<name>.py`` and add its line to ``LOSSES``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from retfiner.losses.gm import GenerativeModelling
from retfiner.losses.itc import ImageTextContrastive
from retfiner.losses.itm import ImageTextMatching, ITMHead
from retfiner.losses.mlm import MaskedLanguageModelling
from retfiner.losses.sigmoid import SigmoidContrast
from retfiner.model import Batch, Contrast, Encoded, RetFiner

__all__ = ["LOSSES", "ITMHead", "Loss", "build_losses"]


class Loss(Protocol):
    """A refinement objective: ``loss(model, batch, encoded, generator) -> scalar``.

    Attributes:
        uses_similarity: Whether it needs ``encoded.similarity``.
        uses_fusion: Whether it needs ``encoded.image``.
        trains_similarity: Whether gradients reach the contrastive heads and the temperature.
        predicts_tokens: Whether it scores the vocabulary.
    """

    uses_similarity: bool
    uses_fusion: bool
    trains_similarity: bool
    predicts_tokens: bool

    def __call__(
        self, model: RetFiner, batch: Batch, encoded: Encoded, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of a batch that ``model.encode`` encoded.

        Whatever the loss draws comes from ``generator``, one of the CPU's.
        """
        ...

    def guesses(self, model: RetFiner, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return how often each answer is right in a batch: what guessing by frequency goes by.

        Of the model nothing but sizes is used; what is drawn is the same as for the loss.

        Returns:
            (answers,) counts. The entropy of their shares is what a model that knows nothing pays.
            Where a pair is asked several questions, (questions, answers): it pays for each.
        """
        ...


LOSSES: dict[str, Callable[..., Loss]] = {
    "itc": ImageTextContrastive,
    "itm": ImageTextMatching,
    "mlm": MaskedLanguageModelling,
    "gm": GenerativeModelling,
}


def build_losses(
    names: Iterable[str],
    contrast: Contrast = "softmax",
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Loss]:
    """Build losses by name, with their arguments; ``sigmoid`` is another contrast for ITC."""
    losses = LOSSES | ({"itc": SigmoidContrast} if contrast == "sigmoid" else {})
    return {name: losses[name](**(options or {}).get(name, {})) for name in names}
