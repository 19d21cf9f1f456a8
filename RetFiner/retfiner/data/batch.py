"""How pairs become a batch: images stacked, reports tokenised, identical ones of both found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from retfiner.common.errors import InputError
from retfiner.data.manifest import OnBadRow
from retfiner.data.pairs import ExamItem, Numbered
from retfiner.data.report_parts import draw_sentences
from retfiner.model import Batch, Groups, Joined
from retfiner.text.tokenizer import tokenize


class Collated(NamedTuple):
    """A batch, or why there is none, and number and reason of each pair that was left out."""

    batch: Batch | InputError
    left_out: list[tuple[int, str]]


@dataclass
class Collate:
    """Put pairs together to a batch: stack images, tokenise reports, find identical ones of both.

    Reports are cut at ``max_tokens`` WordPieces; ``image_shape`` is the (C, H, W) that the backbone
    expects; ``on_bad_row`` says whether an unreadable pair, or image of an exam, is an error or
    left out. With a ``sentence_seed``, sentences of reports that are too long are drawn, in
    training others in each epoch.
    """

    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    image_shape: tuple[int, int, int]
    on_bad_row: OnBadRow = "error"
    sentence_seed: int | None = None
    # Fewest pairs that have to be left: two to contrast, or one where other processes hold more.
    least: int = 2

    def __call__(self, items: list[Numbered]) -> Collated:
        """Build a batch of the items that could be read, or say which error forbids it."""
        unreadable = [(n.row, error) for n in items for error in _errors_of(n.item)]
        try:
            if unreadable and self.on_bad_row == "error":
                raise unreadable[0][1]
            batch = self._build(
                [n for n in items if not isinstance(n.item, InputError)], len(items)
            )
        except InputError as error:
            return Collated(error, [])
        return Collated(batch, [(row, error.problem) for row, error in unreadable])

    def _build(self, kept: list[Numbered], planned: int) -> Batch:
        if len(kept) < min(self.least, planned):
            raise InputError(
                "a batch has lost its pairs",
                got=f"{planned - len(kept)} of {planned} images cannot be decoded",
                expected=f"at least {self.least} readable a batch",
                remedy="mend the image files; --on_bad_row error names each",
            )
        pairs = [self._check(n.row, n.item) for n in kept]
        reports = [
            self.part_of(report, n.epoch) for n, (_, report) in zip(kept, pairs, strict=True)
        ]
        tokens = tokenize(self.tokenizer, reports, self.max_tokens)
        lengths = tuple(tokens.attention_mask.sum(1).tolist())
        read = [ids[:n].tolist() for ids, n in zip(tokens.input_ids, lengths, strict=True)]
        images = [image for image, _ in pairs]
        exams = [n.item for n in kept if isinstance(n.item, ExamItem)]
        return Batch(
            images=torch.cat(images) if exams else torch.stack(images),
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            lengths=lengths,
            report_ids=torch.tensor([_hash_tokens(ids) for ids in read]),
            image_ids=torch.tensor(
                [_hash_image(n, image) for n, (image, _) in zip(kept, pairs, strict=True)]
            ),
            rows=torch.tensor([n.row for n in kept]),
            groups=Groups(
                tuple(len(exam.images) for exam in exams), torch.cat([e.marks for e in exams])
            )
            if exams
            else None,
        )

    def part_of(self, report: str, epoch: int | None = None) -> str:
        """Return what is read of a report, in an epoch or in validation."""
        if self.sentence_seed is None:
            return report
        draw = self.sentence_seed, "sentences", -1 if epoch is None else epoch
        return draw_sentences(report, self.tokenizer, self.max_tokens, *draw)

    def _check(self, row: int, pair: Any) -> tuple[Tensor, str]:
        if isinstance(pair, ExamItem):
            return pair.images, pair.report
        is_pair = isinstance(pair, list | tuple) and len(pair) == 2
        if is_pair and isinstance(pair[0], Tensor) and isinstance(pair[1], str):
            image, report = pair
            if tuple(image.shape) == self.image_shape and image.is_floating_point():
                return image, report
            got = f"an image tensor of shape {tuple(image.shape)} and type {image.dtype}"
        else:
            kinds = [type(part).__name__ for part in pair] if is_pair else type(pair).__name__
            got = f"{kinds}"
        raise InputError(
            f"item {row} of the data set is not an image-report pair",
            got=got,
            expected=f"[float image tensor {self.image_shape}, report string]",
            remedy="apply the transform that the data set is given to each image",
        )


def _errors_of(item: Any) -> Sequence[InputError]:
    """Return why an item, or images of an exam, cannot be read."""
    if isinstance(item, InputError):
        return (item,)
    return item.unreadable if isinstance(item, ExamItem) else ()


def join_reports(parts: Sequence[Batch], rank: int, gather: Callable[[Tensor], Tensor]) -> Joined:
    """Put the reports of all processes together, in the order of ranks; images are left."""
    width = max(part.input_ids.shape[1] for part in parts)

    def padded(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([F.pad(t, (0, width - t.shape[1])) for t in tensors])

    return Joined(
        input_ids=padded([part.input_ids for part in parts]),
        attention_mask=padded([part.attention_mask for part in parts]),
        lengths=tuple(length for part in parts for length in part.lengths),
        report_ids=torch.cat([part.report_ids for part in parts]),
        image_ids=torch.cat([part.image_ids for part in parts]),
        sizes=tuple(len(part.lengths) for part in parts),
        rank=rank,
        gather=gather,
        group_sizes=None
        if any(part.groups is None for part in parts)
        else tuple(size for part in parts for size in part.groups.sizes),  # type: ignore[union-attr]
    )


def identify_reports(
    tokenizer: PreTrainedTokenizerBase, reports: Sequence[str], max_tokens: int | None
) -> Tensor:
    """Return (N,) int64, equal for reports that the text encoder reads as the same WordPieces.

    They are those of a batch's ``report_ids``, the same on every machine. Reports are cut at
    ``max_tokens``; None compares whole ones.
    """
    distinct = list(dict.fromkeys(reports))
    cut = {"truncation": True, "max_length": max_tokens} if max_tokens else {"verbose": False}
    encoded = tokenizer(distinct, **cut)["input_ids"]
    numbers = {text: _hash_tokens(ids) for text, ids in zip(distinct, encoded, strict=True)}
    return torch.tensor([numbers[report] for report in reports])


def _hash_tokens(ids: Sequence[int]) -> int:
    return _hash(np.array(ids, dtype="<i8").tobytes())


def _hash_image(numbered: Numbered, image: Tensor) -> int:
    """Identify an image by where it lies, or by its pixels where a user's class made it."""
    if numbered.address is not None:
        return _hash(str(numbered.address).encode())
    return _hash(image.detach().contiguous().view(torch.uint8).numpy().tobytes())


def _hash(content: bytes) -> int:
    """Return 63 bits of a hash, so that it is a non-negative int64."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big") >> 1
