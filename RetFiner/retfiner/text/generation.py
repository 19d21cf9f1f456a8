"""Writing reports from images with the generative objective's model: greedy, beam, nucleus.

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

A report ends at [SEP], which GM hid and predicted like any word, or when it is as long as reports
could be in training: longer ones were cut there.

transformers' ``generate`` finds the same texts, but sums log-probabilities in float32, and draws
from one global generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedTokenizerBase

from retfiner.text.encoder import CrossAttentionBert
from retfiner.text.layer import KeysValues

DecodeName = Literal["greedy", "beam", "nucleus"]


class SpecialTokens(NamedTuple):
    """[CLS], [SEP], [MASK], [PAD], and those never written: [CLS], [MASK], [PAD], [UNK]."""

    start: int
    end: int
    mask: int
    pad: int
    never: tuple[int, ...]


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen.

    ``greedy`` takes the likeliest token each time, ``beam`` the likeliest report found with
    ``beams`` candidates; ``nucleus`` draws from the likeliest tokens that together hold ``top_p``,
    in (0, 1], of the probability (Holtzman et al., 2020).
    """

    method: DecodeName = "greedy"
    beams: int = 4
    top_p: float = 0.9


class Written(NamedTuple):
    """Reports as ids without [CLS] and [SEP]; of each the sum over them and [SEP], in nats."""

    tokens: list[list[int]]
    log_probabilities: list[float]


class IncrementalDecoder:
    """Score the next token of N reports, W candidates each, over N images.

    Self-attention's keys and values are kept from step to step. The image's, which
    :meth:`CrossAttentionBert.project_image` made, are shared by the W candidates of an image.
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
        """Append (N, W) tokens, [CLS] first, and score what may come next: (N, W, vocabulary)."""
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
            hidden = layer.read(hidden, visible, [image], None, cache=self.cache)
        self.cache.crop(-1)
        return self.text.predict_tokens(hidden[:, 1]).unflatten(0, tokens.shape)

    def reorder(self, source: Tensor) -> None:
        """Go on from other candidates: (N, W') which of an image's W each new one continues."""
        first = torch.arange(len(source), device=source.device) * self.width
        self.cache.reorder_cache((source + first[:, None]).flatten())


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> SpecialTokens:
    """Read the special tokens off a tokenizer."""
    start, mask, pad = tokenizer.cls_token_id, tokenizer.mask_token_id, tokenizer.pad_token_id
    unknown = () if tokenizer.unk_token_id is None else (tokenizer.unk_token_id,)
    return SpecialTokens(start, tokenizer.sep_token_id, mask, pad, (start, mask, pad, *unknown))


@torch.no_grad()
def write_reports(
    text: CrossAttentionBert,
    image: list[KeysValues],
    special: SpecialTokens,
    max_tokens: int,
    decoding: Decoding,
    generators: Sequence[torch.Generator] = (),
) -> Written:
    """Write a report for each image with a model that was refined with GM, in evaluation mode.

    ``image`` is what :meth:`CrossAttentionBert.project_image` made of N images; ``max_tokens`` the
    longest report, [CLS] and [SEP] included, as in training. For ``nucleus`` there is a CPU
    generator an image, so that a report does not depend on which others are written beside it.

    Raises:
        ValueError: If ``max_tokens`` leaves no room for a word, or generators are missing.
    """
    if max_tokens < 3:
        raise ValueError(f"max_tokens must be at least 3, got {max_tokens}")
    decoder = IncrementalDecoder(text, image, special.mask)
    if decoding.method != "nucleus":
        beams = decoding.beams if decoding.method == "beam" else 1
        return _search(decoder, special, max_tokens - 2, beams)
    if len(generators) != len(image[0].keys):
        raise ValueError("nucleus sampling needs one generator for each image")
    return _sample(decoder, special, max_tokens - 2, decoding.top_p, generators)


def _log_probabilities(logits: Tensor, special: SpecialTokens) -> Tensor:
    """Turn logits into log-probabilities over the tokens that may be written."""
    never = torch.tensor(special.never, device=logits.device)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits.index_fill(-1, never, -torch.inf).log_softmax(-1).double()


def _search(
    decoder: IncrementalDecoder, special: SpecialTokens, most_words: int, width: int
) -> Written:
    """Search for the likeliest report with ``width`` candidates; with one, this is greedy.

    A candidate that has ended keeps its place and its score. Scores only fall, so that an image is
    done when its best candidate has ended. They are plain log-probabilities: no length is favoured.
    """
    n, device = len(decoder.image[0].keys), decoder.image[0].keys.device
    last = torch.full((n, 1), special.start, device=device)
    scores = torch.zeros(n, 1, device=device, dtype=torch.float64)
    ended = torch.zeros(n, 1, dtype=torch.bool, device=device)
    sequences = torch.empty(n, 1, 0, dtype=torch.long, device=device)
    for _ in range(most_words):
        log_p = _log_probabilities(decoder.step(last), special)
        # What has ended goes on with padding alone, at no cost.
        log_p = log_p.masked_fill(ended[..., None], -torch.inf)
        log_p[..., special.pad] = log_p[..., special.pad].masked_fill(ended, 0.0)
        total = (scores[..., None] + log_p).flatten(1)
        scores, chosen = total.topk(min(width, total.shape[1]), dim=1)
        source, last = chosen // log_p.shape[-1], chosen % log_p.shape[-1]
        before = sequences.gather(1, source[..., None].expand(-1, -1, sequences.shape[-1]))
        sequences = torch.cat([before, last[..., None]], -1)
        ended = ended.gather(1, source) | (last == special.end)
        if bool(ended[:, 0].all()):  # topk sorts: the first candidate is the best
            break
        if width > 1:
            decoder.reorder(source)
    return Written(
        [_words(row, special) for row in sequences[:, 0].tolist()], scores[:, 0].tolist()
    )


def _sample(
    decoder: IncrementalDecoder,
    special: SpecialTokens,
    most_words: int,
    top_p: float,
    generators: Sequence[torch.Generator],
) -> Written:
    n, device = len(generators), decoder.image[0].keys.device
    last = torch.full((n, 1), special.start, device=device)
    ended = torch.zeros(n, dtype=torch.bool)
    scores = torch.zeros(n, dtype=torch.float64)
    sequences: list[Tensor] = []
    for _ in range(most_words):
        log_p = _log_probabilities(decoder.step(last)[:, 0], special).cpu()
        draws = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators])
        token = draw_nucleus(log_p.exp(), top_p, draws).masked_fill(ended, special.pad)
        gained = log_p.gather(1, token[:, None])[:, 0]
        scores += gained.masked_fill(ended, 0.0)
        sequences.append(token)
        ended |= token == special.end
        if bool(ended.all()):
            break
        last = token[:, None].to(device)
    rows = torch.stack(sequences, 1).tolist()
    return Written([_words(row, special) for row in rows], scores.tolist())


def draw_nucleus(probabilities: Tensor, top_p: float, draws: Tensor) -> Tensor:
    """Draw (N,) tokens, each from the smallest set of likeliest tokens that holds ``top_p``.

    The likeliest is always in it. ``probabilities`` are (N, V), rows sum to 1; ``draws`` (N,),
    uniform in [0, 1).
    """
    sorted_p, order = probabilities.sort(dim=1, descending=True, stable=True)
    before = sorted_p.cumsum(1) - sorted_p
    kept = sorted_p.masked_fill(before >= top_p, 0.0)
    kept[:, 0] = sorted_p[:, 0]
    edges = kept.cumsum(1)
    place = torch.searchsorted(edges, (draws * edges[:, -1])[:, None], right=True)
    last_kept = (kept > 0).sum(1, keepdim=True) - 1  # a draw that is rounded up stays within
    return order.gather(1, torch.minimum(place, last_kept))[:, 0]


def _words(tokens: list[int], special: SpecialTokens) -> list[int]:
    """Cut at the end; padding comes only after it."""
    return tokens[: tokens.index(special.end)] if special.end in tokens else tokens
