"""Sigmoid contrast of images and reports (SigLIP), in the place of ITC."""

import torch
import torch.nn.functional as F
from torch import Tensor

from retfiner.losses.itc import ImageTextContrastive
from retfiner.model import Batch, Encoded, RetFiner


class SigmoidContrast(ImageTextContrastive):
    """Does this image go with this report? Asked of every pair by itself (Zhai et al., ICCV 2023).

    Each of the W * W pairs costs a binary cross-entropy, summed over reports and averaged over
    images. Nothing is normalised over the batch, so that several reports may be right for an image.
    """

    def compare(self, model: RetFiner, encoded: Encoded) -> Tensor:
        """Return the mean over this process's images."""
        assert encoded.similarity is not None
        logits = encoded.similarity + model.contra_bias
        target = encoded.relation.affinity.to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return losses.sum(1).mean()

    def guesses(self, model: RetFiner, batch: Batch, generator: torch.Generator) -> Tensor:
        """Count wrong and right pairs, once for each question that an image is asked.

        Returns:
            (W, 2); see :meth:`Loss.guesses`.
        """
        affinity = model.relation(batch).affinity.double().cpu()
        right = affinity.sum()
        counts = torch.stack([affinity.numel() - right, right])
        return counts.expand(batch.total, 2)
