"""Image-text contrastive loss (ITC)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from retfiner.losses.loss import Loss, Plan
from retfiner.model import Batch, Encoded, RetFiner


class ImageTextContrastive(Loss):
    """Symmetric InfoNCE over a batch (CLIP, ALBEF) with label smoothing.

    Each image is to find its report among the batch's and each report its image. Where several
    reports are right for an image, they share its target, by how right they are.

    Raises:
        ValueError: If ``label_smoothing`` is not in [0, 1).
    """

    uses_similarity = True
    uses_fusion = False
    trains_similarity = True
    predicts_tokens = False

    def __init__(self, label_smoothing: float = 0.1) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {label_smoothing}")
        self.label_smoothing = label_smoothing

    def plan(
        self, model: RetFiner, batch: Batch, encoded: Encoded, generator: torch.Generator
    ) -> Plan:
        """Ask for nothing; the loss is the mean of both directions."""
        loss = self.compare(model, encoded) * batch.weight
        return Plan([], lambda _: loss)

    def compare(self, model: RetFiner, encoded: Encoded) -> Tensor:
        """Return the mean over this process's pairs."""
        assert encoded.similarity is not None
        return self.from_similarity(
            encoded.similarity,
            encoded.relation.affinity,
            encoded.text_similarity,
            encoded.text_relation.affinity,
        )

    def guesses(self, model: RetFiner, batch: Batch, generator: torch.Generator) -> Tensor:
        """Count each of the batch's pairs once; see :meth:`Loss.guesses`.

        Equal scores cost ln W whatever the targets are, smoothed or shared.
        """
        return torch.ones(batch.total)

    def from_similarity(
        self,
        similarity: Tensor,
        affinity: Tensor,
        text_similarity: Tensor | None = None,
        text_affinity: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of given scores: the mean over B images and B reports.

        The scores, (B, W), are those of :class:`Encoded`, ``affinity`` and ``text_affinity``,
        (B, W), those of its relations; by default the latter of each is the former's transpose.
        """
        if text_similarity is None:
            text_similarity = similarity.T
        if text_affinity is None:
            text_affinity = affinity.T.contiguous()
        image_to_text = self._one_way(similarity, affinity)
        return (image_to_text + self._one_way(text_similarity, text_affinity)) / 2

    def _one_way(self, scores: Tensor, affinity: Tensor) -> Tensor:
        target = affinity.to(scores.dtype)
        target = target / target.sum(1, keepdim=True)
        return F.cross_entropy(scores, target, label_smoothing=self.label_smoothing)
