"""The explanation of one image and one report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retfiner.common.errors import InputError
from retfiner.explanation.maps import choose_layer, token_maps
from retfiner.explanation.rollout import rollout
from retfiner.explanation.words import Word, words_of
from retfiner.export.loading import LoadedModel
from retfiner.text.tokenizer import as_report_list

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Explanation:
    """Where each word of a report looks in an image; g x g patches, row 0 at the top.

    Attributes:
        image: (H, W) the B-scan in [0, 1].
        report: The text, white space as in training.
        words: Its W words that the model has read.
        unread: Its words behind the cut.
        attention: (W, g, g) cross-attention of each word.
        weighted: (W, g, g) cross-attention weighted by its gradient of the match score.
        rollout: (g, g) attention rollout of the image alone.
        layer: The cross-attention layer, from 0.
        match: Probability that image and report match; not calibrated.
    """

    image: Array
    report: str
    words: list[Word]
    unread: list[Word]
    attention: Array
    weighted: Array
    rollout: Array
    layer: int
    match: float


def explain(
    loaded: LoadedModel, image: Array, report: str, layer: int | None = None
) -> Explanation:
    """Show where in an image, (H, W) in [0, 1], each word of a report about it looks.

    ``layer`` is one of cross-attention, from 0 and never the last; by default the middle one.

    Raises:
        InputError: If the model has no match head or no such layer, or the report no words.
    """
    model = loaded.model
    layer = choose_layer(len(model.multimodal_encoder.bert.encoder.layer), layer)
    [report] = as_report_list(report)
    words = words_of(loaded.tokenizer, report, loaded.max_text_tokens)
    read = [word for word in words if word.pieces]
    if not read:
        raise InputError("The report has no word to show", got=repr(report))
    pixels = loaded.transform(image)[None].to(loaded.device)
    text, _ = loaded.tokenize([report])
    maps = token_maps(model, pixels, *text)
    return Explanation(
        image=image,
        report=report,
        words=read,
        unread=[word for word in words if not word.pieces],
        attention=_by_word(maps.attention[layer, 0], read),
        weighted=_by_word(maps.weighted[layer, 0], read),
        rollout=_array(rollout(model.backbone, pixels)[0]),
        layer=layer,
        match=float(maps.match[0]),
    )


def _by_word(maps: Tensor, words: list[Word]) -> Array:
    """Average the maps (L, g, g) of the WordPieces of each word: (W, g, g)."""
    return _array(torch.stack([maps[list(word.pieces)].mean(0) for word in words]))


def _array(values: Tensor) -> Array:
    found: Array = values.float().cpu().numpy()
    return found
