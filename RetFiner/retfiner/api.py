"""A refined model from Python: images and texts in, numbers out.

Everything runs without gradients, in evaluation mode, with the model's own preprocessing; arrays
that come back are float32 on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retfiner.common.devices import resolve_device
from retfiner.common.errors import InputError
from retfiner.common.seeds import generator
from retfiner.data.exams import Slices
from retfiner.data.pictures import choose_pictures
from retfiner.export.loading import LoadedModel, read_model
from retfiner.text.generation import DecodeName, Decoding
from retfiner.text.tokenizer import as_report_list
from retfiner.vision.images.in_memory import ImageLike, as_image_list, to_grayscale

if TYPE_CHECKING:
    from retfiner.explanation.explain import Explanation

Array = NDArray[np.float32]
Images = ImageLike | Iterable[ImageLike]


def load_model(
    path: Path | str, device: str = "auto", text_encoder: Path | str | None = None
) -> RefinedModel:
    """Read a refined model, ready to be used.

    ``path`` is ``best-model.ckpt`` of a run, or the run's folder; ``device`` ``cpu``, ``cuda``,
    ``mps``, or ``auto`` for the best there is. ``text_encoder`` is a folder with the tokenizer, for
    checkpoints that do not carry theirs.

    Raises:
        InputError: If the file is no checkpoint of a run, or the device is not there.
    """
    return RefinedModel(read_model(path, resolve_device(device), text_encoder))


class RefinedModel:
    """A refined model: embeds images and reports, compares, matches, explains and writes them.

    Wherever images are taken, one image or a list of them may be given: paths (``scan.e2e#12`` is
    B-scan 12 of a volume), arrays (H, W) of NumPy or pictures of Pillow.

    At most ``batch_size`` images, or texts, go through an encoder at once.
    """

    def __init__(self, loaded: LoadedModel, batch_size: int = 32) -> None:
        self.loaded = loaded
        self.batch_size = batch_size
        self._model = loaded.model
        self._transform = loaded.transform

    @property
    def device(self) -> torch.device:
        """Where the model works."""
        return self.loaded.device

    @property
    def can_compare(self) -> bool:
        """Whether images and reports have a space that they share: refined with ITC or ITM."""
        return self._model.is_contrastive

    @property
    def can_match(self) -> bool:
        """Whether pairs can be judged and explained: refined with ITM."""
        return hasattr(self._model, "itm_head")

    @property
    def can_write(self) -> bool:
        """Whether reports can be written: refined with GM."""
        return "gm" in self.loaded.losses

    def encode_images(self, images: Images) -> Array:
        """Embed N images in the space that they share with reports: (N, E) unit vectors.

        Raises:
            InputError: If an image cannot be read, or the model was refined without ITC and ITM.
        """
        self.require_contrast()
        return _array([self.loaded.embed_images(batch) for batch in self._image_batches(images)])

    def encode_exam(
        self, images: Images, eye: str | Sequence[str] = "", kind: str | Sequence[str] = ""
    ) -> Array:
        """Embed the images of one exam in the space that they share with reports: (E,), unit.

        Files of volumes and folders stand for all of their images, in order. Images of an eye and a
        kind are taken for one volume; both may be given for each of the ``images``, in the words
        that tables use. Of more images than in training, as many are taken, as in validation.

        Raises:
            InputError: If an image cannot be read, the numbers differ, or the model was refined on
                single images.
        """
        return _array([self._exam(images, eye, kind)[0]])

    def exam_features(
        self,
        images: Images,
        eye: str | Sequence[str] = "",
        kind: str | Sequence[str] = "",
        method: str | None = None,
    ) -> Array:
        """Give the frozen features of an exam, (F,): its images', weighed as for the contrast.

        See :meth:`encode_exam` and :meth:`features`.

        Raises:
            InputError: As these.
        """
        _, shares, chosen = self._exam(images, eye, kind)
        summed: Array = shares.numpy() @ self.features(chosen, method)
        return summed

    def _exam(
        self, images: Images, eye: str | Sequence[str], kind: str | Sequence[str]
    ) -> tuple[Tensor, Tensor, list[ImageLike]]:
        if self._model.pooling is None:
            raise InputError(
                "This model has not learnt to read exams",
                got="one that was refined on single images",
                expected="a model refined with --group_column",
            )
        self.require_contrast()
        settings = self.loaded.description["settings"]
        slices = Slices(settings["slices"], settings["max_slices"])
        pictures, marks = choose_pictures(as_image_list(images), eye, kind, slices)
        return *self.loaded.embed_exam(self._pixels(pictures), marks), pictures

    def encode_texts(self, texts: str | Iterable[str]) -> Array:
        """Embed M reports in the space that they share with images: (M, E) unit vectors.

        They are cut at as many WordPieces as in training.

        Raises:
            InputError: If a text has no words, or the model was refined without ITC and ITM.
        """
        self.require_contrast()
        return _array([self.loaded.embed_texts(as_report_list(texts), self.batch_size)])

    def similarity(self, images: Images, texts: str | Iterable[str]) -> Array:
        """Compare each of N images with each of M reports: (N, M) cosines, higher is closer.

        Raises:
            InputError: As :meth:`encode_images` and :meth:`encode_texts`.
        """
        similar: Array = self.encode_images(images) @ self.encode_texts(texts).T
        return similar

    @torch.no_grad()
    def match(self, images: Images, texts: str | Iterable[str]) -> Array:
        """Judge pairs: does this report describe this image? More exact than the similarity.

        There may be one image for all texts, or one text for all images.

        Returns:
            (N,) probability of a match by the image-text matching head. It was trained against
            hard negatives, two for each true pair: it ranks; it is not calibrated.

        Raises:
            InputError: If the numbers differ, or the model was refined without ITM.
        """
        if not self.can_match:
            raise _lacks("no head that matches images and reports", "itm")
        pictures, reports = _paired(as_image_list(images), as_report_list(texts))
        fused = self._model.multimodal_encoder
        found = []
        for first in range(0, len(reports), self.batch_size):
            part = slice(first, first + self.batch_size)
            text, packing = self.loaded.tokenize(reports[part])
            several = pictures[part]
            is_one = all(picture is several[0] for picture in several)  # then it is encoded once
            pixels = self._pixels(several[:1] if is_one else several)
            with self.loaded.autocast():
                image = fused.project_image(self._model.encode_images(pixels))
                index = torch.zeros_like(text.input_ids[:, 0]) if is_one else None
                states = fused.fuse(*text, image, index, packing=packing)
                found.append(self._model.itm_head(states[:, 0]).softmax(-1)[:, 1])
        return _array(found)

    def generate(
        self,
        images: Images,
        decode: DecodeName = "greedy",
        *,
        beams: int = 4,
        top_p: float = 0.9,
        seed: int = 0,
    ) -> list[str]:
        """Write a report for each image, in the words of the reports it was refined on.

        For ``decode``, ``beams`` and ``top_p`` see :class:`retfiner.text.generation.Decoding`. With
        ``nucleus``, an image's report depends on the seed and the image's place alone.

        Returns:
            N reports, lower-case where the tokenizer is; at most as long as in training. A report
            may be empty. They may be wrong: this is no reading of the scan.

        Raises:
            InputError: If an image cannot be read, a setting is out of range, or the model was
                refined without GM.
        """
        if not self.can_write:
            raise _lacks("not learnt to write reports", "gm")
        decoding = _decoding(decode, beams, top_p)
        reports: list[str] = []
        for batch in self._image_batches(images):
            places = range(len(reports), len(reports) + len(batch))
            generators = [generator(seed, "generate", place) for place in places]
            reports += self.loaded.write_reports(batch, decoding, generators)[0]
        return reports

    @torch.no_grad()
    def features(self, images: Images, method: str | None = None) -> Array:
        """Give the frozen features that linear probing is trained on, (N, F).

        ``method`` is one of ``retfiner.vision.METHODS``; None is the backbone's own.

        Raises:
            InputError: If an image cannot be read, or there is no such method.
        """
        backbone = self._model.backbone
        return _array([backbone.features(b, method) for b in self._image_batches(images)])

    def explain(self, image: ImageLike, report: str, layer: int | None = None) -> Explanation:
        """Show where in an image each word of a report looks, by a map for each word.

        The cross-attention ``layer`` counts from 0 and is by default the middle one.

        Raises:
            InputError: If the model was refined without ITM, or there is no such layer.
        """
        from retfiner.explanation.explain import explain

        return explain(self.loaded, to_grayscale(image), report, layer)

    def _image_batches(self, images: Images) -> Iterator[Tensor]:
        listed = as_image_list(images)
        for first in range(0, len(listed), self.batch_size):
            yield self._pixels(listed[first : first + self.batch_size])

    def _pixels(self, pictures: list[ImageLike]) -> Tensor:
        pixels = torch.stack([self._transform(to_grayscale(picture)) for picture in pictures])
        return pixels.to(self.loaded.device)

    def require_contrast(self) -> None:
        """Refuse what only a model with a space for both can do.

        Raises:
            InputError: If it was refined without ITC and ITM.
        """
        if not self.can_compare:
            raise _lacks("no space that images and reports share", "itc or itm")


def _paired(pictures: list[ImageLike], reports: list[str]) -> tuple[list[ImageLike], list[str]]:
    """Repeat a single image, or a single report, for all of the others."""
    count = max(len(pictures), len(reports))
    if not {len(pictures), len(reports)} <= {1, count}:
        raise InputError(
            "Images and reports cannot be paired",
            got=f"{len(pictures)} images and {len(reports)} reports",
            expected="as many of one as of the other, or a single one for all",
        )
    return pictures * (count // len(pictures)), reports * (count // len(reports))


def _decoding(method: DecodeName, beams: int, top_p: float) -> Decoding:
    if method not in get_args(DecodeName):
        known = ", ".join(get_args(DecodeName))
        raise InputError("There is no such way to write", got=repr(method), expected=known)
    if beams < 1 or not 0 < top_p <= 1:
        raise InputError(
            "Reports cannot be written so",
            got=f"beams={beams}, top_p={top_p}",
            expected="beams of at least 1 and top_p in (0, 1]",
        )
    return Decoding(method, beams, top_p)


def _lacks(problem: str, losses: str) -> InputError:
    return InputError(
        f"This model has {problem}",
        expected=f"a model refined with {losses}",
        remedy="refine with --losses itc itm mlm gm, the default",
    )


def _array(parts: list[Tensor]) -> Array:
    found: Array = torch.cat(parts).float().cpu().numpy()
    return found
