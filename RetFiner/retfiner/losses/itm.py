"""Image-text matching loss (ITM) with hard negatives from the batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retfiner.batch import Batch
from retfiner.common.devices import send
from retfiner.model import Encoded, RetFiner


class ITMHead(nn.Module):
    """Two layers that say from the fused [CLS] whether an image and a text belong together.

    Args:
        width: Width of the text encoder.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, width)
        self.layernorm = nn.LayerNorm(width, eps=1e-12)
        self.linear2 = nn.Linear(width, 2)

    def forward(self, fused_cls: Tensor) -> Tensor:
        """Score (N, width) fused [CLS] tokens: (N, 2) logits of no match and match."""
        return self.linear2(self.layernorm(F.gelu(self.linear1(fused_cls))))


class Negatives(NamedTuple):
    """One hard negative for each text and for each image.

    Attributes:
        image_for_text: (B,) index of a wrong image for text b.
        text_for_image: (B,) index of a wrong text for image b.
        exists: (B,) false where every pair of the batch carries the same report as pair b.
    """

    image_for_text: Tensor
    text_for_image: Tensor
    exists: Tensor


class ImageTextMatching:
    """Does this report describe this image? B true pairs against 2B hard negatives (ALBEF).

    A wrong pair is drawn the more often the more similar the contrastive heads find it. Pairs that
    carry the same report are never each other's negatives.
    """

    uses_similarity = True
    uses_fusion = True

    def __call__(
        self, model: RetFiner, batch: Batch, encoded: Encoded, generator: torch.Generator
    ) -> Tensor:
        """Draw negatives and return the loss; see :class:`retfiner.losses.base.Loss`."""
        assert encoded.similarity is not None
        negatives = draw_negatives(encoded.similarity, encoded.same_report, generator)
        return self.from_negatives(model, batch, encoded, negatives)

    def from_negatives(
        self, model: RetFiner, batch: Batch, encoded: Encoded, negatives: Negatives
    ) -> Tensor:
        """Return the loss with given negatives.

        Three groups of B pairs, in this order: the true ones; image b with its wrong text; text b
        over its wrong image.
        """
        ids, mask = batch.input_ids, batch.attention_mask
        matched = model.fuse(ids, mask, encoded, packing=encoded.packing)
        # Which texts are drawn is known on the device alone, and so are their lengths.
        drawn = negatives.text_for_image
        wrong_text = model.fuse(ids[drawn], mask[drawn], encoded)
        wrong_image = model.fuse(
            ids, mask, encoded, negatives.image_for_text, packing=encoded.packing
        )
        cls = torch.cat([states[:, 0] for states in (matched, wrong_text, wrong_image)])
        logits = model.itm_head(cls)
        own = torch.ones_like(batch.report_ids)
        is_match = torch.cat([own, torch.zeros_like(own).repeat(2)])
        counts = torch.cat([torch.ones_like(negatives.exists), negatives.exists.repeat(2)])
        losses = F.cross_entropy(logits, is_match, reduction="none")
        return (losses * counts).sum() / counts.sum()


@torch.no_grad()
def draw_negatives(
    similarity: Tensor, same_report: Tensor, generator: torch.Generator
) -> Negatives:
    """Draw hard negatives in proportion to softmax(similarity) + 1e-4, matches excluded.

    Args:
        similarity: (B, B) score of image i and report j, divided by the temperature.
        same_report: (B, B) true where report j counts as the report of image i; symmetric.
        generator: A CPU generator.
    """
    scores = similarity.float()
    noise = torch.empty(2, *scores.shape).exponential_(generator=generator)
    noise = send(noise, scores.device)
    return Negatives(
        image_for_text=_draw(scores.T, same_report, noise[0]),
        text_for_image=_draw(scores, same_report, noise[1]),
        exists=~same_report.all(1),
    )


def _draw(scores: Tensor, excluded: Tensor, noise: Tensor) -> Tensor:
    """Draw one column a row with exponential races.

    The column whose weight divided by an exponential variate is largest wins with probability
    weight / sum of weights: torch.multinomial's distribution without its wait for the device.
    """
    weights = (scores.softmax(1) + 1e-4).masked_fill(excluded, 0.0)
    return (weights / noise).argmax(1)
