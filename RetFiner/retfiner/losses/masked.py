"""What MLM and GM share: hide tokens of a report, and score them over the report's image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from retfiner.model import Batch, Encoded, RetFiner
from retfiner.text.masking import MaskedTokens, mask_tokens


class MaskedModelling:
    """Hide a share of the words and predict them over the image.

    Attributes:
        causal: Whether a token sees only itself and the tokens before it.
        probability: Share of the words hidden.
    """

    uses_similarity = False
    uses_fusion = True
    trains_similarity = False
    predicts_tokens = True
    causal: bool
    probability: float

    def __call__(
        self, model: RetFiner, batch: Batch, encoded: Encoded, generator: torch.Generator
    ) -> Tensor:
        """Hide words and return the loss; see :class:`retfiner.losses.Loss`."""
        masked = self._hide(model, batch, generator)
        return masked_prediction(model, batch, encoded, masked, self.causal)

    def guesses(self, model: RetFiner, batch: Batch, generator: torch.Generator) -> Tensor:
        """Count each word among the hidden ones; see :class:`retfiner.losses.Loss`."""
        labels = self._hide(model, batch, generator).labels
        return torch.bincount(labels, minlength=model.vocab_size).float()

    def _hide(self, model: RetFiner, batch: Batch, generator: torch.Generator) -> MaskedTokens:
        joined = batch.joined
        return mask_tokens(
            batch.input_ids,
            batch.lengths if joined is None else joined.lengths,
            self.probability,
            model.mask_token_id,
            model.vocab_size,
            generator,
            first=0 if joined is None else joined.first,
            width=None if joined is None else joined.input_ids.shape[1],
            random_from=model.random_token_from,
            redraw=model.redraw_masks,
        )


def masked_prediction(
    model: RetFiner, batch: Batch, encoded: Encoded, masked: MaskedTokens, causal: bool
) -> Tensor:
    """Return the mean cross-entropy over the hidden positions.

    With several processes, the mean of what they return is the mean over all their positions.
    """
    states = model.fuse(
        masked.input_ids, batch.attention_mask, encoded, causal=causal, packing=encoded.packing
    )
    # Only the hidden positions meet the vocabulary: it is the widest product of the step.
    hidden, labels = states.flatten(0, 1)[masked.positions], masked.labels

    def share_of_mean(_: int, rows: slice) -> Tensor:
        logits = model.multimodal_encoder.predict_tokens(hidden[rows])
        loss = F.cross_entropy(logits, labels[rows])
        return loss[None] * (len(logits) / len(labels))

    loss = model.in_chunks(len(batch.lengths), share_of_mean, len(labels)).sum()
    return loss if batch.joined is None else loss * masked.share * len(batch.joined.sizes)
