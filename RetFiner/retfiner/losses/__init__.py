"""The refinement objectives: one file each, and the list of them.

To add one, write ``losses/<name>.py`` and add its line to ``LOSSES``.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from retfiner.losses.gm import GenerativeModelling
from retfiner.losses.itc import ImageTextContrastive
from retfiner.losses.itm import ImageTextMatching, ITMHead
from retfiner.losses.loss import Loss, losses_together
from retfiner.losses.mlm import MaskedLanguageModelling
from retfiner.losses.sigmoid import SigmoidContrast
from retfiner.model import Contrast

__all__ = ["LOSSES", "ITMHead", "Loss", "build_losses", "losses_together"]


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
