"""Teach a new BERT to read: masked words, and what a report says from its [CLS].

Masked language modelling alone leaves [CLS] as it was made: nothing is asked of it, and the
contrast, which knows a report by it, first has to find out that it should look at the words. So
[CLS] also has to name the report's WordPieces in any order (bag-of-words prediction; Ma et al.,
"Drop your Decoder", SIGIR 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from retfiner.common.progress import progress
from retfiner.common.seeds import generator
from retfiner.text.encoder import CrossAttentionBert
from retfiner.text.masking import mask_tokens
from retfiner.text.packing import packing_of

MASKED = 0.3
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
"""For a BERT 64 wide; wider ones take less, by the square root of their width."""


def pretrain_text(
    encoder: CrossAttentionBert,
    tokenizer: PreTrainedTokenizerBase,
    reports: Sequence[str],
    epochs: int,
    seed: int,
) -> list[float]:
    """Train a text encoder on reports alone, in place; its cross-attention has no part in it.

    Reports are read to the length that the encoder can. What is masked and in which order reports
    come follows from the seed.

    Returns:
        The mean loss of each epoch, in nats: that of masked words plus that of [CLS].
    """
    length = encoder.config.max_position_embeddings
    ids = [torch.tensor(tokens) for tokens in _read(tokenizer, reports, length)]
    random = generator(seed, "pretrain text")
    steps = epochs * -(-len(ids) // BATCH_SIZE)
    lr = LEARNING_RATE * (64 / encoder.config.hidden_size) ** 0.5
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=lr, weight_decay=0.01)
    # Of ten steps a tenth is one, and torch divides by the steps of the warm-up less one.
    warmup = 0.1 if steps != 10 else 0.11
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=warmup
    )
    encoder.to("cuda" if torch.cuda.is_available() else "cpu").train()
    means = []
    with progress("learning to read", steps, "step") as bar:
        for _ in range(epochs):
            losses = []
            for chosen in torch.randperm(len(ids), generator=random).split(BATCH_SIZE):
                loss = _loss(encoder, tokenizer, [ids[i] for i in chosen.tolist()], random)
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                losses.append(loss.detach())
                bar.update()
            means.append(torch.stack(losses).mean().item())
            bar.set_postfix(loss=f"{means[-1]:.3f}")
    encoder.to("cpu").eval()
    return means


def _read(
    tokenizer: PreTrainedTokenizerBase, reports: Sequence[str], length: int
) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(list(reports), truncation=True, max_length=length)["input_ids"]
    return ids


def _loss(
    encoder: CrossAttentionBert,
    tokenizer: PreTrainedTokenizerBase,
    reports: list[Tensor],
    random: torch.Generator,
) -> Tensor:
    """Return the loss of a batch: of hidden words from their places, of all words from [CLS]."""
    lengths = tuple(map(len, reports))
    ids = torch.nn.utils.rnn.pad_sequence(reports, True, int(tokenizer.pad_token_id))
    ids = ids.to(encoder.device)
    masked = mask_tokens(
        ids,
        lengths,
        MASKED,
        int(tokenizer.mask_token_id),
        len(tokenizer),
        random,
        random_from=len(tokenizer.all_special_ids),
    )
    attention = torch.arange(ids.shape[1], device=ids.device) < torch.tensor(
        lengths, device=ids.device
    ).unsqueeze(1)
    packing = packing_of(lengths, ids.shape[1], ids.device)
    states = encoder.encode_text(masked.input_ids, attention.long(), packing)
    hidden = encoder.predict_tokens(states.flatten(0, 1)[masked.positions])
    bag = torch.zeros(len(reports), encoder.config.vocab_size, device=ids.device)
    bag.scatter_(1, ids, 1.0)
    bag[:, tokenizer.all_special_ids] = 0.0
    bag /= bag.sum(1, keepdim=True).clamp(min=1.0)
    named = F.cross_entropy(encoder.predict_tokens(states[:, 0]), bag)
    return F.cross_entropy(hidden, masked.labels) + named
