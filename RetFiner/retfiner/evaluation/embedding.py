"""Images and reports as unit vectors in the space where they are compared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from retfiner.common.errors import InputError
from retfiner.evaluation.images import stream_images
from retfiner.evaluation.models import Evaluated
from retfiner.text.tokenizer import tokenize
from retfiner.vision.images import ImageAddress


@torch.no_grad()
def embed_images(
    evaluated: Evaluated,
    addresses: Sequence[ImageAddress],
    batch_size: int,
    num_workers: int | None,
) -> tuple[Tensor, dict[int, str]]:
    """Embed images one batch after another.

    Args:
        evaluated: The model.
        addresses: N images.
        batch_size: Images at a time.
        num_workers: Processes that read them.

    Returns:
        (N, E) unit vectors, float32 on the CPU, and the reason for each position that could not be
        read, whose row is zero.

    Raises:
        InputError: If an embedding is not finite.
    """
    model = evaluated.loaded.model
    rows: Tensor | None = None
    unreadable: dict[int, str] = {}
    for batch in stream_images(
        addresses, evaluated.transform, batch_size, num_workers, "embedding images"
    ):
        unreadable.update(batch.unreadable)
        if not batch.positions:
            continue
        with evaluated.autocast():
            tokens = model.encode_images(batch.images.to(evaluated.device))
            embedded = model.embed_images(tokens)
        if rows is None:
            rows = torch.zeros(len(addresses), embedded.shape[1])
        rows[batch.positions] = _finite(embedded, "an image")
    if rows is None:
        raise InputError("no image can be read", got=next(iter(unreadable.values()), "none"))
    return rows, unreadable


@torch.no_grad()
def embed_texts(evaluated: Evaluated, texts: Sequence[str], batch_size: int = 256) -> Tensor:
    """Embed texts, cut at the model's longest report.

    Args:
        evaluated: The model.
        texts: M texts.
        batch_size: Texts at a time.

    Returns:
        (M, E) unit vectors, float32 on the CPU.

    Raises:
        InputError: If an embedding is not finite.
    """
    loaded, parts = evaluated.loaded, []
    for start in range(0, len(texts), batch_size):
        some = tokenize(loaded.tokenizer, texts[start : start + batch_size], loaded.max_text_tokens)
        with evaluated.autocast():
            embedded = loaded.model.embed_texts(
                some.input_ids.to(evaluated.device), some.attention_mask.to(evaluated.device)
            )
        parts.append(_finite(embedded, "a text"))
    return torch.cat(parts)


def _finite(embedded: Tensor, what: str) -> Tensor:
    embedded = embedded.float().cpu()
    if not torch.isfinite(embedded).all():
        raise InputError(
            f"the embedding of {what} is not finite",
            expected="finite numbers",
            remedy="--precision 32-true; if that does not help, the model's training diverged",
        )
    return embedded
