"""The refinement objectives: one file each, and the list of them.

To add one, write ``losses/<name>.py`` and add its line to ``LOSSES``.
"""

from collections.abc import Callable

from retfiner.losses.base import Loss
from retfiner.losses.gm import GenerativeModelling
from retfiner.losses.itc import ImageTextContrastive
from retfiner.losses.itm import ImageTextMatching, ITMHead
from retfiner.losses.mlm import MaskedLanguageModelling

LOSSES: dict[str, Callable[[], Loss]] = {
    "itc": ImageTextContrastive,
    "itm": ImageTextMatching,
    "mlm": MaskedLanguageModelling,
    "gm": GenerativeModelling,
}

__all__ = ["LOSSES", "ITMHead", "Loss"]
