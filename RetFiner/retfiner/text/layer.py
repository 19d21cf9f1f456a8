"""One layer of the text encoder: self-attention, attention to an image, feed-forward."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.cache_utils import Cache
from transformers.models.bert.modeling_bert import BertLayer

from retfiner.text.packing import Packing
from retfiner.text.recompute import making_again

_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""What text attends by on a GPU."""


class KeysValues(NamedTuple):
    """One layer's keys and values of a batch of images, each (B, heads, T, head width).

    ``mask``, (B, 1, 1, T), is true where there is a token; None is everywhere. Of copies,
    ``source`` holds the keys and values that were copied, and which of them.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None = None
    source: tuple[Tensor, Tensor, Tensor] | None = None

    def ways(self) -> list[tuple[Tensor, Callable[[], Tensor]]]:
        """Give what can be copied again, and how; see :func:`making_again`."""
        if self.source is None:
            return []
        *sources, index = self.source
        return [
            (copy, partial(of.detach().index_select, 0, index))
            for copy, of in zip((self.keys, self.values), sources, strict=True)
        ]


class CrossAttentionLayer(BertLayer):
    """A layer whose weights are used in two steps: for the image once, then for each text.

    Whatever reads its weights in training is a method here: where weights are split over devices,
    these methods gather them first.
    """

    def project_image(self, image_tokens: Tensor) -> KeysValues:
        """Project (B, T, H) image tokens to the cross-attention's keys and values."""
        attention = self.crossattention.self
        heads = attention.num_attention_heads
        # Laid out head by head once, or every pass that looks at them makes a copy that is.
        return KeysValues(
            _heads_of(attention.key(image_tokens), heads).contiguous(),
            _heads_of(attention.value(image_tokens), heads).contiguous(),
        )

    def read(
        self,
        hidden: Tensor,
        mask: Tensor,
        image: Sequence[KeysValues] | None,
        packing: Packing | None,
        rows: list[int] | None = None,
        cache: Cache | None = None,
        forget: bool = False,
    ) -> Tensor:
        """Run over the (N, L, H) states of the layer before, or over (T, H) packed ones.

        ``mask``, broadcastable to (N, heads, L, L), is true where a query may look at a key.
        ``image`` holds keys and values for the first ``rows[0]`` of the N texts, for the next
        ``rows[1]``, ...; by default for all. Each part may hold those of fewer images, over each of
        which as many texts in a row are read. None skips the cross-attention. ``cache`` holds
        self-attention's keys and values of the tokens before; these are added. With ``forget``, the
        backward pass makes again what it can.
        """
        core = self.attention.self
        query, key, value = (
            _heads_of(projection(hidden), core.num_attention_heads, packing)
            for projection in (core.query, core.key, core.value)
        )
        if cache is not None:
            key, value = cache.update(key, value, core.layer_idx)
        context = mix(self.attention, query, KeysValues(key, value), mask, forget)
        hidden = self._add(self.attention, hidden, context, packing)
        if image is not None:
            crossing = self.crossattention
            heads = crossing.self.num_attention_heads
            query = _heads_of(crossing.self.query(hidden), heads, packing)
            parts = query.split(rows or [len(query)])
            seen = [
                mix(crossing, q, part, part.mask, forget)
                for q, part in zip(parts, image, strict=True)
            ]
            context = seen[0] if len(seen) == 1 else torch.cat(seen)
            hidden = self._add(crossing, hidden, context, packing)
        return self.output(self.intermediate(hidden), hidden)

    @staticmethod
    def _add(attention: Any, hidden: Tensor, context: Tensor, packing: Packing | None) -> Tensor:
        """Add what attention found, (N, L, H), to the states it was asked with."""
        return attention.output(context if packing is None else packing.pack(context), hidden)


def _heads_of(states: Tensor, num_heads: int, packing: Packing | None = None) -> Tensor:
    """(B, L, H), or (T, H) packed, to (B, heads, L, head width)."""
    states = states if packing is None else packing.unpack(states)
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def mix(
    attention: Any, query: Tensor, seen: KeysValues, mask: Tensor | None, forget: bool = False
) -> Tensor:
    """Let queries look at keys: ``layer.attention`` or ``layer.crossattention`` without its output.

    Queries are (N, heads, L, head width); keys and values (N, heads, S, head width), or of fewer
    than N, each for as many texts in a row. ``mask`` is true where a query may look at a key. With
    ``forget``, the backward pass makes again what it can.

    Returns:
        (N, L, H).
    """
    dropout = attention.self.dropout.p if attention.training else 0.0
    texts = len(query) // len(seen.keys)
    if texts > 1:  # their queries are laid side by side: nothing is copied
        query = query.unflatten(0, (-1, texts)).transpose(1, 2).flatten(2, 3)
    forget = forget and not torch.compiler.is_compiling()
    context = _attention(query, seen, mask, dropout, forget)
    context = context.transpose(1, 2).flatten(2)
    return context.unflatten(1, (texts, -1)).flatten(0, 1) if texts > 1 else context


def _attention(
    query: Tensor, seen: KeysValues, mask: Tensor | None, dropout: float, forget: bool
) -> Tensor:
    """Mix the values by how well queries and keys match, by a fused kernel where there is one."""
    if dropout > 0 and query.device.type == "cpu":
        return _dropped_attention(query, seen, mask, dropout, forget)
    with making_again(*seen.ways() if forget else ()):
        if query.device.type != "cuda":
            return F.scaled_dot_product_attention(query, seen.keys, seen.values, mask, dropout)
        # Not cuDNN's kernel, which is compiled anew for each length of the longest report: seconds
        # for a step whose length has not been seen (3.9 s instead of 0.2 s on an H200).
        with sdpa_kernel(_KERNELS):
            return F.scaled_dot_product_attention(query, seen.keys, seen.values, mask, dropout)


def _dropped_attention(
    query: Tensor, seen: KeysValues, mask: Tensor | None, dropout: float, forget: bool
) -> Tensor:
    """Attend with dropout on a CPU, where torch has no fused kernel for it.

    What torch does instead keeps a scaled copy of the keys: the image's keys, which all texts
    share, would be there for each part of them.
    """
    ways = seen.ways() if forget else []
    query = query / math.sqrt(query.shape[-1])
    with making_again(*ways):
        scores = query @ seen.keys.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1)
    if not forget:
        return F.dropout(weights, dropout) @ seen.values
    # The very numbers of F.dropout(), which keeps them four bytes wide, and its output.
    is_left = torch.empty_like(weights).bernoulli_(1 - dropout).bool()
    make_factors = partial(_factors, is_left, weights.dtype, dropout)
    factors = make_factors()
    with making_again((factors, make_factors)):
        dropped = weights * factors
    with making_again(*ways, (dropped, partial(_product, weights.detach(), make_factors))):
        return dropped @ seen.values


def _factors(is_left: Tensor, dtype: torch.dtype, dropout: float) -> Tensor:
    return is_left.to(dtype).div_(1 - dropout)


def _product(weights: Tensor, make_factors: Callable[[], Tensor]) -> Tensor:
    return weights * make_factors()
