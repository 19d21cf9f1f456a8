"""A training step as the published code takes it, over the weights of our own model.

Every pass of the text encoder stands alone: it projects the image's keys and values itself, scores
the whole vocabulary at every position, and attends without a fused kernel; reports are padded to 30
WordPieces; tokens are hidden one by one in Python, and negatives are drawn row by row. Random
numbers are those of our step, so that in evaluation mode both give the same losses.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from retfiner.losses import LOSSES
from retfiner.model import Batch, RetFiner

PADDED = 30
IGNORED = -100


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
        model, own = self.model, torch.arange(len(batch.images), device=batch.images.device)
        ids, mask = self._pad(batch.input_ids), self._pad(batch.attention_mask)
        image = model.encode_images(batch.images)
        found: dict[str, Tensor] = {}
        similarity = None
        if {"itc", "itm"} & set(names):
            vision = F.normalize(model.contra_head_v.linear(image[:, 0]), dim=-1)
            hidden, _ = self._read(ids, mask, None)
            text = F.normalize(model.contra_head_t.linear(hidden[:, 0]), dim=-1)
            similarity = vision @ text.T / model.temperature
        for name in names:
            if name == "itc":
                itc = (self._contrast(similarity, own) + self._contrast(similarity.T, own)) / 2
                found["itc"] = itc
            elif name == "itm":
                found["itm"] = self._match(ids, mask, image, similarity, generators["itm"])
            else:
                found[name] = self._predict(name, batch, mask, image, generators[name])
        return found

    def _pad(self, values: Tensor) -> Tensor:
        return F.pad(values, (0, PADDED - values.shape[1]))

    def _contrast(self, similarity: Tensor, own: Tensor) -> Tensor:
        return F.cross_entropy(similarity, own, label_smoothing=0.1)

    def _match(
        self,
        ids: Tensor,
        mask: Tensor,
        image: Tensor,
        similarity: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        size = len(ids)
        with torch.no_grad():
            scores = similarity.float()
            noise = torch.empty(2, size, size).exponential_(generator=generator).to(scores.device)
            wrong_image = self._draw(scores.T.softmax(1), noise[0])
            wrong_text = self._draw(scores.softmax(1), noise[1])
        matched, _ = self._read(ids, mask, image)
        text_index = torch.cat([torch.arange(size), wrong_text]).to(ids.device)
        image_index = torch.cat([wrong_image, torch.arange(size)]).to(ids.device)
        unmatched, _ = self._read(ids[text_index], mask[text_index], image[image_index])
        logits = self.model.itm_head(torch.cat([matched[:, 0], unmatched[:, 0]]))
        labels = torch.cat([torch.ones(size), torch.zeros(2 * size)]).long().to(logits.device)
        return F.cross_entropy(logits, labels)

    def _draw(self, weights: Tensor, noise: Tensor) -> Tensor:
        drawn = []
        for row in range(len(weights)):
            chances = weights[row] + 1e-4
            chances[row] = 0.0
            drawn.append(int((chances / noise[row]).argmax().item()))
        return torch.tensor(drawn)

    def _predict(
        self, name: str, batch: Batch, mask: Tensor, image: Tensor, generator: torch.Generator
    ) -> Tensor:
        shown, labels = self._hide(batch, LOSSES[name]().probability, generator)  # type: ignore[attr-defined]
        _, logits = self._read(self._pad(shown), mask, image, causal=name == "gm")
        labels = F.pad(labels, (0, PADDED - labels.shape[1]), value=IGNORED)
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

    def _hide(
        self, batch: Batch, probability: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Hide tokens one by one; the draws are those of ``retfiner.text.masking``."""
        size, width = batch.input_ids.shape
        chance = torch.rand((size, width), generator=generator)
        hidden: list[tuple[int, int]] = []
        for row in range(size):
            eligible = range(1, batch.lengths[row])
            chosen = [column for column in eligible if chance[row, column].item() < probability]
            if not chosen:
                chosen = [min(eligible, key=lambda column, row=row: chance[row, column].item())]
            hidden += [(row, column) for column in chosen]
        fate = torch.rand(len(hidden), generator=generator)
        random_ids = torch.randint(self.model.vocab_size, (len(hidden),), generator=generator)
        shown = batch.input_ids.clone()
        labels = torch.full_like(shown, IGNORED)
        for number, (row, column) in enumerate(hidden):
            labels[row, column] = batch.input_ids[row, column]
            if fate[number] < 0.8:
                shown[row, column] = self.model.mask_token_id
            elif fate[number] >= 0.9:
                shown[row, column] = random_ids[number]
        return shown, labels

    def _read(
        self, ids: Tensor, mask: Tensor, image: Tensor | None, causal: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Run the text encoder and its head over the whole vocabulary."""
        text, length = self.text, ids.shape[1]
        visible = mask.bool()[:, None, None, :]
        if causal:
            visible = visible & torch.ones(length, length, device=ids.device).bool().tril()
        hidden = text.bert.embeddings(input_ids=ids)
        for layer in text.bert.encoder.layer:
            hidden = self._attend(layer.attention, hidden, hidden, visible)
            if image is not None:
                hidden = self._attend(layer.crossattention, hidden, image, None)
            hidden = layer.output(layer.intermediate(hidden), hidden)
        return hidden, text.cls(hidden)

    def _attend(
        self, attention: torch.nn.Module, hidden: Tensor, seen: Tensor, visible: Tensor | None
    ) -> Tensor:
        core = attention.self
        query, key, value = (
            projection(states).unflatten(-1, (core.num_attention_heads, -1)).transpose(1, 2)
            for projection, states in ((core.query, hidden), (core.key, seen), (core.value, seen))
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if visible is not None:
            scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
        weights = core.dropout(scores.softmax(-1))
        return attention.output((weights @ value).transpose(1, 2).flatten(2), hidden)
