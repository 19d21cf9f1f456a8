"""Image-text matching: the probability that a text describes an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retfiner.common.errors import InputError
from retfiner.evaluation.images import stream_images
from retfiner.evaluation.models import Evaluated
from retfiner.text.layer import KeysValues
from retfiner.text.packing import packing_of
from retfiner.vision.images import ImageAddress

TEXTS_AT_A_TIME = 64


@torch.no_grad()
def match_pairs(
    evaluated: Evaluated,
    addresses: Sequence[ImageAddress],
    texts: Sequence[str],
    pairs: NDArray[np.int64],
    batch_size: int,
    num_workers: int | None,
) -> NDArray[np.float32]:
    """Score pairs of an image and a text; each image is read and encoded once.

    Args:
        evaluated: A model refined with ITM.
        addresses: N images.
        texts: M texts.
        pairs: (P, 2) positions of image and text, without repetition.
        batch_size: Images at a time.
        num_workers: Processes that read them.

    Returns:
        (P,) match probabilities.

    Raises:
        InputError: If an image cannot be read, or a probability is not finite.
    """
    loaded = evaluated.loaded
    ids = loaded.tokenizer(
        list(texts), truncation=True, max_length=loaded.max_text_tokens, verbose=False
    )["input_ids"]
    order = np.argsort(pairs[:, 0], kind="stable")
    images, starts = np.unique(pairs[order, 0], return_index=True)
    groups = dict(zip(images.tolist(), np.split(order, starts[1:]), strict=True))
    found = np.empty(len(pairs), dtype=np.float32)
    for batch in stream_images(
        addresses, evaluated.transform, batch_size, num_workers, "matching", images.tolist()
    ):
        if batch.unreadable:
            raise InputError(f"an image can no longer be read: {batch.unreadable[0][1]}")
        with evaluated.autocast():
            tokens = loaded.model.encode_images(batch.images.to(evaluated.device))
            for row, position in enumerate(batch.positions):
                group = groups[position]
                wanted = [ids[text] for text in pairs[group, 1]]
                found[group] = _match_one(evaluated, tokens[row : row + 1], wanted)
    if not np.isfinite(found).all():
        raise InputError("a match probability is not finite", remedy="--precision 32-true")
    return found


def _match_one(
    evaluated: Evaluated, image_tokens: Tensor, texts: Sequence[list[int]]
) -> NDArray[np.float32]:
    """Match (1, T, H) image tokens with texts; the image's keys are shared and never copied."""
    model, device = evaluated.loaded.model, evaluated.device
    pad = evaluated.loaded.tokenizer.pad_token_id
    image = model.multimodal_encoder.project_image(image_tokens)
    found = []
    for start in range(0, len(texts), TEXTS_AT_A_TIME):
        some = texts[start : start + TEXTS_AT_A_TIME]
        lengths = [len(text) for text in some]
        longest = max(lengths)
        ids = torch.tensor([text + [pad] * (longest - len(text)) for text in some], device=device)
        mask = torch.arange(longest, device=device) < torch.tensor(lengths, device=device)[:, None]
        shared = [
            KeysValues(*(part.expand(len(some), -1, -1, -1) for part in layer)) for layer in image
        ]
        packing = packing_of(lengths, longest, device)
        states = model.multimodal_encoder.fuse(ids, mask, shared, packing=packing)
        logits = model.itm_head(states[:, 0]).float()
        found.append(logits.softmax(1)[:, 1].cpu().numpy())
    return np.concatenate(found)
