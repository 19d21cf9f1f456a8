"""What MLM and GM share: hide tokens of a report, and score them over the report's image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from retfiner.losses.loss import Loss, Plan
from retfiner.model import Batch, Encoded, RetFiner
from retfiner.text.masking import MaskedTokens, mask_tokens
from retfiner.text.reading import Reading


class MaskedModelling(Loss):
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

    def plan(
        self, model: RetFiner, batch: Batch, encoded: Encoded, generator: torch.Generator
    ) -> Plan:
        """Hide words, and ask for the rest to be read; see :class:`retfiner.losses.Loss`."""
        return masked_prediction(model, batch, self._hide(model, batch, generator), self.causal)

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


def masked_prediction(model: RetFiner, batch: Batch, masked: MaskedTokens, causal: bool) -> Plan:
    """Plan the mean cross-entropy over the hidden positions.

    With several processes, the mean of what they return is the mean over all their positions.
    """
    reading = Reading(masked.input_ids, batch.attention_mask, batch.lengths, causal)

    def answer(states: list[Tensor]) -> Tensor:
        # Only the hidden positions meet the vocabulary: it is the widest product of the step.
        hidden, labels = states[0].flatten(0, 1)[masked.positions], masked.labels

        def share_of_mean(_: int, rows: slice) -> Tensor:
            logits = model.multimodal_encoder.predict_tokens(hidden[rows])
            loss = F.cross_entropy(logits, labels[rows])
            return loss[None] * (len(logits) / len(labels))

        loss = model.in_chunks(len(batch.lengths), share_of_mean, len(labels)).sum()
        if batch.joined is None:
            return loss
        return loss * masked.share * len(batch.joined.sizes)

    return Plan([reading], answer)
