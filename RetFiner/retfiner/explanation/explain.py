"""The explanation of one image, or of the images of an exam, and one report."""

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
from retfiner.export.loading import LoadedModel, require_exams
from retfiner.model import Groups
from retfiner.text.tokenizer import as_report_list

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """A report as it was read over an image, or an exam.

    Attributes:
        report: The text, white space as in training.
        words: Its W words that the model has read.
        unread: Its words behind the cut.
        layer: The cross-attention layer, from 0.
        match: Probability that image, or exam, and report match; not calibrated.
    """

    report: str
    words: list[Word]
    unread: list[Word]
    layer: int
    match: float


@dataclass(frozen=True, kw_only=True)
class Explanation(_Reading):
    """Where each word of a report looks in an image; g x g patches, row 0 at the top.

    Beside what is said of the reading: ``report``, ``words``, ``unread``, ``layer``, ``match``.

    Attributes:
        image: (H, W) the B-scan in [0, 1]; of a fundus photograph (H, W, 3).
        attention: (W, g, g) cross-attention of each word.
        weighted: (W, g, g) cross-attention weighted by its gradient of the match score.
        rollout: (g, g) attention rollout of the image alone.
    """

    image: Array
    attention: Array
    weighted: Array
    rollout: Array


@dataclass(frozen=True, kw_only=True)
class ExamExplanation(_Reading):
    """At which of the K images of an exam each word of a report looks, and where in them.

    Beside what is said of the reading, as in :class:`Explanation`.

    Attributes:
        images: K images as there.
        names: What each of them is called.
        attention: (W, K, g, g) cross-attention of each word.
        weighted: (W, K, g, g) cross-attention weighted by its gradient of the match score.
        rollout: (K, g, g) attention rollout of each image alone.
    """

    images: list[Array]
    names: list[str]
    attention: Array
    weighted: Array
    rollout: Array

    def shares(self, weighted: bool = True) -> Array:
        """Say how each word's map is shared out among the images: (W, K), a word's sum to 1.

        An empty map is in no image: its shares are 0.
        """
        sums = (self.weighted if weighted else self.attention).sum((-2, -1))
        whole = sums.sum(1, keepdims=True)
        return np.divide(sums, whole, out=np.zeros_like(sums), where=whole > 0)

    def of(self, number: int) -> Explanation:
        """Return what there is of one image, from 0."""
        return Explanation(
            image=self.images[number],
            report=self.report,
            words=self.words,
            unread=self.unread,
            attention=self.attention[:, number],
            weighted=self.weighted[:, number],
            rollout=self.rollout[number],
            layer=self.layer,
            match=self.match,
        )


def explain(
    loaded: LoadedModel, image: Array, report: str, layer: int | None = None
) -> Explanation:
    """Show where in an image, (H, W) in [0, 1], each word of a report about it looks.

    ``layer`` is one of cross-attention, from 0 and never the last; by default the middle one.

    Raises:
        InputError: If the model has no match head or no such layer, or the report no words.
    """
    return _explain(loaded, [image], ["image"], None, report, layer).of(0)


def explain_exam(
    loaded: LoadedModel,
    images: list[Array],
    names: list[str],
    marks: Tensor,
    report: str,
    layer: int | None = None,
) -> ExamExplanation:
    """Show where in the K images of an exam, which have (K, MARKS) marks, each word looks.

    Raises:
        InputError: As :func:`explain`, or if the model was refined on single images.
    """
    require_exams(loaded.model)
    groups = Groups((len(images),), marks.to(loaded.device))
    return _explain(loaded, images, names, groups, report, layer)


def _explain(
    loaded: LoadedModel,
    images: list[Array],
    names: list[str],
    groups: Groups | None,
    report: str,
    layer: int | None,
) -> ExamExplanation:
    model = loaded.model
    layer = choose_layer(len(model.multimodal_encoder.bert.encoder.layer), layer)
    [report] = as_report_list(report)
    words = words_of(loaded.tokenizer, report, loaded.max_text_tokens)
    read = [word for word in words if word.pieces]
    if not read:
        raise InputError("The report has no word to show", got=repr(report))
    pixels = torch.stack([loaded.transform(image) for image in images]).to(loaded.device)
    text, _ = loaded.tokenize([report])
    maps = token_maps(model, pixels, *text, groups)
    side = maps.attention.shape[-1]
    over_images = (len(read), len(images), side, side)
    return ExamExplanation(
        images=images,
        names=names,
        report=report,
        words=read,
        unread=[word for word in words if not word.pieces],
        attention=_by_word(maps.attention[layer, 0], read).reshape(over_images),
        weighted=_by_word(maps.weighted[layer, 0], read).reshape(over_images),
        rollout=_array(rollout(model.backbone, pixels)),
        layer=layer,
        match=float(maps.match[0]),
    )


def _by_word(maps: Tensor, words: list[Word]) -> Array:
    """Average the maps (L, ...) of the WordPieces of each word: (W, ...)."""
    return _array(torch.stack([maps[list(word.pieces)].mean(0) for word in words]))


def _array(values: Tensor) -> Array:
    return values.float().cpu().numpy()
