"""Does an objective learn, and does it use the image? Each loss beside what tells.

A loss alone says little: image-text matching that ends at .637 has learnt nothing, since guessing
one third gives .637; a masked word may be guessed from the words around it. So each loss is shown
beside what a model that knows nothing would have, and beside what it is when the images are dealt
out anew among the reports: the difference is what the objective takes from the image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from retfiner.losses import LOSSES

Verdict = Literal["learns", "does not use the image", "at chance"]

MARGIN = 0.02
"""Share of what guessing gives, and of the loss that is left, that counts as a difference."""
MARGIN_ABOVE = 0.1
"""The same where a loss is above what guessing gives: of few pairs it moves by more than 2 %."""

ADVICE = {
    ("itc", "at chance"): "more epochs or pairs; a larger --batch_size has more to contrast, and "
    "--contrast_batch with as little memory",
    ("itm", "at chance"): "it needs a contrast that works, and more steps: more epochs or pairs",
    ("mlm", "at chance"): "more epochs, or a text encoder that has learned masked words",
    ("gm", "at chance"): "more epochs, or a text encoder that has learned masked words",
    ("mlm", "does not use the image"): "words are guessed from words: more pairs or epochs, or "
    "reports that differ more",
    ("gm", "does not use the image"): "words are guessed from words: more pairs or epochs, or "
    "reports that differ more",
    ("itc", "does not use the image"): "check that images and reports belong together",
    ("itm", "does not use the image"): "check that images and reports belong together",
}
"""What to try, by objective and verdict."""


class Objective(NamedTuple):
    """An objective on validation.

    Attributes:
        value: Its loss.
        chance: What guessing gives.
        shuffled: Its loss with the images dealt out anew among the reports.
    """

    value: float
    chance: float
    shuffled: float

    @property
    def from_image(self) -> float:
        """What the objective takes from the image, in nats."""
        return self.shuffled - self.value

    @property
    def verdict(self) -> Verdict:
        """Whether it learns.

        A contrast may lie above chance and yet use the image: wordings of one finding count as each
        other's negatives, and a model that is sure of its answer pays for each of them.
        """
        margin = MARGIN if self.value < self.chance else MARGIN_ABOVE
        if self.from_image > margin * min(self.chance, self.value):
            return "learns"
        is_below = self.value < (1 - MARGIN) * self.chance
        return "does not use the image" if is_below else "at chance"


def loss_names(columns: Iterable[str]) -> list[str]:
    """List the losses among columns of metrics: the sum, then each in the order of ``LOSSES``."""
    found = {c.removeprefix("val/") for c in columns if c.startswith("val/") and "recall" not in c}
    return [name for name in ("loss", *LOSSES) if name in found]


def read_objectives(metrics: Mapping[str, float]) -> dict[str, Objective]:
    """Collect the objectives of a row of metrics, those that were measured whole.

    Args:
        metrics: ``val/<name>``, ``chance/<name>`` and ``shuffled/<name>``.
    """
    found = {}
    for name in loss_names(metrics):
        values = [metrics.get(f"{kind}/{name}", math.nan) for kind in ("val", "chance", "shuffled")]
        if not any(math.isnan(value) for value in values):
            found[name] = Objective(*values)
    return found


def entropy(counts: Tensor) -> float:
    """Return the entropy in nats of counts (V,): what guessing by frequency gives.

    Of counts (Q, V), the sum over questions.
    """
    if counts.dim() > 1:
        return math.fsum(map(entropy, counts))
    shares = counts[counts > 0].double()
    shares = shares / shares.sum()
    return float(-(shares * shares.log()).sum())


def deal_anew(report_ids: Tensor, image_ids: Tensor) -> Tensor:
    """Deal images out anew, so that as few as can be get their own, or one with their own report.

    Args:
        report_ids: (B,), equal for identical reports.
        image_ids: (B,), equal for identical images.

    Returns:
        (B,) indices of the images: a rotation, the identity only for a batch of one.
    """
    size = len(report_ids)
    if size < 2:
        return torch.arange(size, device=report_ids.device)
    rotations = torch.stack([torch.arange(size).roll(-shift) for shift in range(1, size)])
    rotations = rotations.to(report_ids.device)
    kept = ((report_ids[rotations] == report_ids) | (image_ids[rotations] == image_ids)).sum(1)
    return rotations[kept.argmin()]
