"""Image-text matching loss (ITM) with hard negatives from the batch."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retfiner.common.devices import send
from retfiner.losses.loss import Loss, Plan
from retfiner.model import Batch, Encoded, RetFiner
from retfiner.text.reading import Reading

NegativesKind = Literal["hard", "uniform"]


class ITMHead(nn.Module):
    """Two layers that say from the fused [CLS] whether an image and a text belong together."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, width)
        self.layernorm = nn.LayerNorm(width, eps=1e-12)
        self.linear2 = nn.Linear(width, 2)

    def forward(self, fused_cls: Tensor) -> Tensor:
        """Score (N, width) fused [CLS] tokens: (N, 2) logits of no match and match."""
        return self.linear2(self.layernorm(F.gelu(self.linear1(fused_cls))))


class Negatives(NamedTuple):
    """One negative for each text and for each image.

    Attributes:
        image_for_text: (B,) index of a wrong image for text b, among those of all processes;
            ``text_for_image`` likewise.
        has_image: (B,) false where every image of the batch matches text b.
        has_text: (B,) false where every text of the batch matches image b.
    """

    image_for_text: Tensor
    text_for_image: Tensor
    has_image: Tensor
    has_text: Tensor


class ImageTextMatching(Loss):
    """Does this report describe this image? B true pairs against 2B wrong ones (ALBEF).

    With ``hard`` negatives, a wrong pair is drawn the more often the more similar the contrastive
    heads find it: as published. Where reports repeat findings in other words, most of those are
    right as well and the loss stays at guessing; ``uniform`` draws all wrong pairs alike. Pairs
    that match each other (the same report or image) are never each other's negatives. Where several
    processes train together, negatives come from all of them.
    """

    uses_similarity = True
    uses_fusion = True
    trains_similarity = False
    predicts_tokens = False

    def __init__(self, negatives: NegativesKind = "hard") -> None:
        self.negatives = negatives

    def plan(
        self, model: RetFiner, batch: Batch, encoded: Encoded, generator: torch.Generator
    ) -> Plan:
        """Draw negatives, and ask for true and wrong pairs; see :class:`retfiner.losses.Loss`."""
        scores, text_scores = encoded.similarity, encoded.text_similarity
        assert scores is not None and text_scores is not None
        if self.negatives == "uniform":
            scores, text_scores = torch.zeros_like(scores), torch.zeros_like(text_scores)
        negatives = draw_negatives(
            scores,
            encoded.relation.matches,
            generator,
            text_scores,
            encoded.text_relation.matches,
            0 if batch.joined is None else batch.joined.first,
        )
        plan = self.from_negatives(model, batch, negatives)
        if batch.joined is None:
            return plan
        # A mean over this process's true and wrong pairs, of which others may have more or fewer.
        counted = 1 + self._count_negatives(model, batch)
        share = counted[batch.own].sum().to(scores.dtype) / counted.sum() * len(batch.joined.sizes)
        return plan._replace(answer=lambda states: plan.answer(states) * share)

    def guesses(self, model: RetFiner, batch: Batch, generator: torch.Generator) -> Tensor:
        """Count false and true pairs; see :class:`retfiner.losses.Loss`."""
        negatives = self._count_negatives(model, batch)
        return torch.tensor([float(negatives.sum()), len(negatives)])

    @staticmethod
    def _count_negatives(model: RetFiner, batch: Batch) -> Tensor:
        """Return (W,) how many negatives each pair of all processes has: a text, an image."""
        matches = model.relation(batch).matches
        return (~matches.all(1)).int() + (~matches.all(0)).int()

    @staticmethod
    def from_negatives(model: RetFiner, batch: Batch, negatives: Negatives) -> Plan:
        """Plan the loss with given negatives.

        Three groups of B pairs, in this order: the true ones; image b with its wrong text; text b
        over its wrong image.
        """
        texts = batch if batch.joined is None else batch.joined
        drawn = negatives.text_for_image
        own = Reading(batch.input_ids, batch.attention_mask, batch.lengths)
        wrong_text = Reading(
            texts.input_ids[drawn],
            texts.attention_mask[drawn],
            # Elsewhere only the device knows which texts are drawn, and so how long they are.
            [texts.lengths[n] for n in drawn.tolist()] if drawn.device.type == "cpu" else None,
        )
        wrong_image = own._replace(image_index=negatives.image_for_text)

        def answer(states: list[Tensor]) -> Tensor:
            logits = model.itm_head(torch.cat([read[:, 0] for read in states]))
            true = torch.ones_like(batch.report_ids)
            is_match = torch.cat([true, torch.zeros_like(true).repeat(2)])
            has_text, has_image = negatives.has_text, negatives.has_image
            counts = torch.cat([torch.ones_like(has_text), has_text, has_image])
            losses = F.cross_entropy(logits, is_match, reduction="none")
            return (losses * counts).sum() / counts.sum()

        return Plan([own, wrong_text, wrong_image], answer)


@torch.no_grad()
def draw_negatives(
    similarity: Tensor,
    matches: Tensor,
    generator: torch.Generator,
    text_similarity: Tensor | None = None,
    text_matches: Tensor | None = None,
    first: int = 0,
) -> Negatives:
    """Draw negatives in proportion to softmax(similarity) + 1e-4, matches excluded.

    Each pair of the batch of all processes has a seed of its own, so that a process draws noise for
    its own B pairs alone, and the draws are the same however many processes there are.

    The scores, (B, W), are those of :class:`Encoded`, ``matches`` and ``text_matches``, (B, W),
    those of its relations; by default the latter of each is the former's transpose. ``first`` is
    the place of the first of the B pairs among the W.
    The generator is one of the CPU's.
    """
    images = similarity.float()
    texts = images.T if text_similarity is None else text_similarity.float()
    text_matches = matches.T if text_matches is None else text_matches
    size, total = images.shape
    noise = send(_noise(size, total, first, generator), images.device)
    return Negatives(
        image_for_text=_draw(texts, text_matches, noise[0]),
        text_for_image=_draw(images, matches, noise[1]),
        has_image=~text_matches.all(1),
        has_text=~matches.all(1),
    )


def _noise(size: int, total: int, first: int, generator: torch.Generator) -> Tensor:
    """Draw exponential variates (2, B, W) for B of W pairs, each pair's by its place among all."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    noise = torch.empty(2, size, total)
    for row in range(size):
        own = torch.Generator().manual_seed(seed + first + row)
        noise[:, row] = torch.empty(2, total).exponential_(generator=own)
    return noise


def _draw(scores: Tensor, excluded: Tensor, noise: Tensor) -> Tensor:
    """Draw one column a row with exponential races.

    The column whose weight divided by an exponential variate is largest wins with probability
    weight / sum of weights: torch.multinomial's distribution without its wait for the device.
    """
    weights = (scores.softmax(1) + 1e-4).masked_fill(excluded, 0.0)
    return (weights / noise).argmax(1)
