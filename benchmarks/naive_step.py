"""A training step as the published code takes it, over the weights of our own model.

What it does, and so this: reports are padded to 30 WordPieces; the text encoder is a BERT as
transformers 4 had it, with a mask that is added to the scores, keys and values of the image
projected anew in each pass, and the vocabulary scored at every position of every pass; it reads
five times, for MLM, for GM, for ITC without images, for ITM without images again (to draw negatives
and for nothing else) and for ITM over three pairs to each of the batch; words are hidden one by one
in Python, on arrays that come from the device and go back; negatives are drawn row by row, each
waited for, and their images stacked; the ViT is timm's.

Where the published code is slower than it need be with the libraries of today, this is as fast as
those are: the ViT attends by torch's fused kernel (timm 0.4.12 had none); scores over an image,
which has no padding, get no mask of zeros; the range that random words are drawn from is not made
into a list for each; weights are converted to half-precision once a step (Lightning converts them
in each of its ``autocast`` contexts). Its optimiser is ``torch.optim.AdamW`` as torch sets it up.

Random numbers are those of our step, so that in evaluation mode both give the same losses.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retfiner.losses import LOSSES
from retfiner.model import Batch, RetFiner

PADDED = 30
IGNORED = -100
FORBIDDEN = -10_000.0
"""What is added to the score of a key that a query may not look at."""


class NaiveStep:
    """The losses of a batch, the published way.

    Args:
        model: The model whose weights are used.
    """

    def __init__(self, model: RetFiner) -> None:
        self.model = model
        self.text = model.multimodal_encoder

    def losses(
        self, batch: Batch, names: list[str], generators: dict[str, torch.Generator]
    ) -> dict[str, Tensor]:
        """Give the losses by name.

        Args:
            batch: The step's pairs.
            names: Which losses.
            generators: A CPU generator for each loss.
        """
        ids, mask = (
            F.pad(v, (0, PADDED - v.shape[1])) for v in (batch.input_ids, batch.attention_mask)
        )
        image = self.model.vision_proj(self.model.backbone.fusion_tokens(batch.images))
        found: dict[str, Tensor] = {}
        for name in names:
            if name == "itc":
                found[name] = self._contrast(ids, mask, image)
            elif name == "itm":
                found[name] = self._match(ids, mask, image, generators[name])
            else:
                found[name] = self._predict(name, batch, ids, mask, image, generators[name])
        return found

    def _similarity(self, ids: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        states, _ = read(self.text, ids, mask)
        text = F.normalize(self.model.contra_head_t.linear(states[:, 0]), dim=-1)
        vision = F.normalize(self.model.contra_head_v.linear(image[:, 0]), dim=-1)
        return vision @ text.T / self.model.temperature

    def _contrast(self, ids: Tensor, mask: Tensor, image: Tensor) -> Tensor:
        similarity, own = self._similarity(ids, mask, image), torch.arange(len(ids)).to(ids.device)
        both = (F.cross_entropy(s, own, label_smoothing=0.1) for s in (similarity, similarity.T))
        return sum(both, torch.zeros((), device=ids.device)) / 2

    def _match(
        self, ids: Tensor, mask: Tensor, image: Tensor, generator: torch.Generator
    ) -> Tensor:
        size = len(ids)
        similarity = self._similarity(ids, mask, image)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        wrong_image, wrong_text = [], []
        with torch.no_grad():
            weights = [
                (s.float().softmax(1) + 1e-4).fill_diagonal_(0) for s in (similarity.T, similarity)
            ]
            for row in range(size):
                own = torch.Generator().manual_seed(seed + row)
                noise = torch.empty(2, size).exponential_(generator=own).to(ids.device)
                wrong_image.append(int((weights[0][row] / noise[0]).argmax().item()))
                wrong_text.append(int((weights[1][row] / noise[1]).argmax().item()))
        states, _ = read(
            self.text,
            torch.cat([ids, ids, torch.stack([ids[i] for i in wrong_text])]),
            torch.cat([mask, mask, torch.stack([mask[i] for i in wrong_text])]),
            torch.cat([image, torch.stack([image[i] for i in wrong_image]), image]),
        )
        is_match = torch.cat([torch.ones(size), torch.zeros(2 * size)]).long().to(ids.device)
        return F.cross_entropy(self.model.itm_head(states[:, 0]), is_match)

    def _predict(
        self,
        name: str,
        batch: Batch,
        ids: Tensor,
        mask: Tensor,
        image: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        width, probability = batch.input_ids.shape[1], LOSSES[name]().probability  # type: ignore[attr-defined]
        shown, labels = self._hide(ids, width, probability, generator)
        if name == "gm":
            mask = mask[:, None, :].expand(-1, PADDED, -1).tril()
        _, logits = read(self.text, shown, mask, image)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

    def _hide(
        self, ids: Tensor, width: int, probability: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Hide words one by one; the draws are those of ``retfiner.text.masking``."""
        shown = ids.cpu().numpy().copy()
        chance = torch.rand((len(shown), width), generator=generator).numpy()
        hidden = []
        for row in range(len(shown)):
            words = [column for column in range(1, width) if shown[row][column] != 0]
            chosen = [column for column in words if chance[row][column] < probability]
            least = [min(words, key=lambda column, row=row: chance[row][column])]
            hidden += [(row, column) for column in chosen or least]
        fate = torch.rand(len(hidden), generator=generator).numpy()
        drawn = torch.randint(self.model.vocab_size, (len(hidden),), generator=generator).numpy()
        labels = torch.full(shown.shape, IGNORED).numpy()
        for number, (row, column) in enumerate(hidden):
            labels[row][column] = shown[row][column]
            if fate[number] < 0.8:
                shown[row][column] = self.model.mask_token_id
            elif fate[number] >= 0.9:
                shown[row][column] = drawn[number]
        return torch.from_numpy(shown).to(ids.device), torch.from_numpy(labels).to(ids.device)


def read(
    text: nn.Module, ids: Tensor, mask: Tensor, image: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run BERT and its head over the whole vocabulary.

    Args:
        text: The weights, as transformers names them.
        ids: (N, L) WordPieces.
        mask: (N, L), or (N, L, L) by query and key, 1 where it may be looked at.
        image: (N, T, H) image tokens, or None to leave the cross-attention out.

    Returns:
        (N, L, H) states and (N, L, vocabulary) logits.
    """
    mask = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
    added = (1.0 - mask.float()) * FORBIDDEN
    states = text.bert.embeddings(input_ids=ids)
    for layer in text.bert.encoder.layer:
        states = attend(layer.attention, states, states, added)
        if image is not None:
            states = attend(layer.crossattention, states, image, None)
        states = layer.output(layer.intermediate(states), states)
    return states, text.cls(states)


def attend(attention: nn.Module, states: Tensor, seen: Tensor, added: Tensor | None) -> Tensor:
    """Let ``states`` look at ``seen``, with what is added to the scores."""
    core = attention.self
    query, key, value = (
        projection(x).unflatten(-1, (core.num_attention_heads, -1)).transpose(1, 2)
        for projection, x in ((core.query, states), (core.key, seen), (core.value, seen))
    )
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if added is not None:
        scores = scores + added
    weights = core.dropout(scores.softmax(-1))
    return attention.output((weights @ value).transpose(1, 2).flatten(2), states)
