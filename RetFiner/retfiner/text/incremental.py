"""Writing a report token by token at the price of one step a token.

How GM was trained decides what the model must be fed. GM hides 60 % of the tokens and predicts
each one *at its own place*: the encoder mostly reads [MASK] there, and a causal mask lets that
place see itself and what stands before it. So the model is not asked, as a GPT is, what follows
w_k at the place of w_k. It is asked what is hidden at the place of a [MASK] behind w_k. To write
token k + 1 it therefore reads [CLS] w_1 .. w_k [MASK] and is scored at the [MASK]; then the same
place is read again as the token that was chosen. In training part of w_1 .. w_k was hidden too.
All of them in sight is the best-informed of the cases it saw; nothing it never saw is fed.

Both readings are done in one step: the chosen token w_k at place k and a [MASK] at place k + 1
go in together, and only the first one's keys and values are kept. Causality makes that exact:
what stands at a place never depends on what comes later.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache

from retfiner.text.encoder import CrossAttentionBert
from retfiner.text.layer import KeysValues


class IncrementalDecoder:
    """Score the next token of N reports, W candidates each, over N images.

    Self-attention's keys and values are kept from step to step. The image's are projected once and
    shared by the W candidates of an image.

    Args:
        text: The text encoder, in evaluation mode.
        image: What :meth:`CrossAttentionBert.project_image` made of N images.
        mask_token_id: The tokenizer's [MASK].
    """

    def __init__(
        self, text: CrossAttentionBert, image: list[KeysValues], mask_token_id: int
    ) -> None:
        self.text = text
        self.image = image
        self.mask_token_id = mask_token_id
        self.cache = DynamicCache()
        self.width = 1

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """Append a token to each report and score what may come next.

        Args:
            tokens: (N, W) the next token of each report; [CLS] comes first.

        Returns:
            (N, W, vocabulary) logits of the token at the place after it.
        """
        length, self.width = self.cache.get_seq_length(), tokens.shape[1]
        if length + 2 > self.text.config.max_position_embeddings:
            raise ValueError(f"the text encoder has no place {length + 1}")
        ids = torch.stack([tokens, torch.full_like(tokens, self.mask_token_id)], -1)
        places = torch.arange(length, length + 2, device=tokens.device)
        hidden = self.text.bert.embeddings(input_ids=ids.flatten(0, 1), position_ids=places[None])
        # The token sees what is kept and itself; the [MASK] behind it sees the token as well.
        visible = torch.ones(2, length + 2, dtype=torch.bool, device=tokens.device)
        visible[0, -1] = False
        for layer, image in zip(self.text.layers, self.image, strict=True):
            hidden = layer.read(hidden, visible, image, None, self.cache)
        self.cache.crop(-1)
        return self.text.predict_tokens(hidden[:, 1]).unflatten(0, tokens.shape)

    def reorder(self, source: Tensor) -> None:
        """Go on from other candidates; what is kept follows them.

        Args:
            source: (N, W') which of an image's W candidates each new one continues.
        """
        first = torch.arange(len(source), device=source.device) * self.width
        self.cache.reorder_cache((source + first[:, None]).flatten())
