"""A refined model from Python: images and texts in, numbers out.

Everything runs without gradients, in evaluation mode, with the model's own preprocessing; arrays
that come back are float32 on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retfiner.common.devices import resolve_device
from retfiner.common.errors import InputError
from retfiner.common.seeds import generator
from retfiner.data.exams import Exam, Slices
from retfiner.data.pictures import ExamPictures, as_seen, choose_pictures, pictures_of
from retfiner.export.loading import LoadedModel, read_model, require_exams
from retfiner.model import Groups
from retfiner.text.generation import DecodeName, Decoding
from retfiner.text.tokenizer import as_report_list
from retfiner.vision.exams import MARKS
from retfiner.vision.images import ImageAddress
from retfiner.vision.images.in_memory import ImageLike, as_image_list, to_grayscale

if TYPE_CHECKING:
    from retfiner.explanation.explain import ExamExplanation, Explanation

Array = NDArray[np.float32]
Subject = ImageLike | ExamPictures
"""An image, or the images of an exam, which :meth:`RefinedModel.exam` brings together."""
Images = Subject | Iterable[Subject]


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
    B-scan 12 of a volume), arrays (H, W) of NumPy or pictures of Pillow. Where the model was
    refined on exams, :meth:`exam` makes one of several images, which may stand where an image does.

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

    @property
    def can_read_exams(self) -> bool:
        """Whether several images may be read as one: refined with ``--group_column``."""
        return self._model.pooling is not None

    def exam(
        self,
        images: ImageLike | Iterable[ImageLike] | Exam,
        eye: str | Sequence[str] = "",
        kind: str | Sequence[str] = "",
    ) -> ExamPictures:
        """Bring the images of one exam together, to be looked at as one.

        Files of volumes and folders stand for all of their images, in order. Images of an eye and a
        kind are taken for one volume; both may be given for each of the ``images``, in the words
        that tables use, and the kind is else seen from the file. Of more images than in training,
        as many are taken, as in validation. An exam of a table may be given as it was read.

        Raises:
            InputError: If a file cannot be used, the numbers differ, or the model was refined on
                single images.
        """
        require_exams(self._model)
        slices = Slices.of(self.loaded.description["settings"])
        if isinstance(images, Exam):
            return pictures_of(images, slices)
        return choose_pictures(as_image_list(images), eye, kind, slices)

    def encode_images(self, images: Images) -> Array:
        """Embed N images in the space that they share with reports: (N, E) unit vectors.

        Raises:
            InputError: If an image cannot be read, or the model was refined without ITC and ITM.
        """
        self.require_contrast()
        return _array([self.loaded.embed_images(*batch) for _, batch in self._batches(images)])

    def encode_exam(
        self,
        images: ImageLike | Iterable[ImageLike],
        eye: str | Sequence[str] = "",
        kind: str | Sequence[str] = "",
    ) -> Array:
        """Embed the images of one exam in the space that they share with reports: (E,), unit.

        Raises:
            InputError: As :meth:`exam` and :meth:`encode_images`.
        """
        return self.encode_images(self.exam(images, eye, kind))[0]

    def exam_features(
        self,
        images: ImageLike | Iterable[ImageLike],
        eye: str | Sequence[str] = "",
        kind: str | Sequence[str] = "",
        method: str | None = None,
    ) -> Array:
        """Give the frozen features of an exam, (F,): its images', weighed as for the contrast.

        Raises:
            InputError: As :meth:`exam` and :meth:`features`.
        """
        exam = self.exam(images, eye, kind)
        self.require_contrast()
        shares = self.loaded.exam_shares(self._pixels([exam]), exam.marks)
        return shares.numpy() @ self.features(exam.images, method)

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
        return self.encode_images(images) @ self.encode_texts(texts).T

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
        subjects, reports = _paired(_listed(images), as_report_list(texts))
        fused, found = self._model.multimodal_encoder, []
        if all(subject is subjects[0] for subject in subjects):  # then it is encoded once
            with self.loaded.autocast():
                image, mask = self.loaded.encode(*self._batch(subjects[:1]))
                return _array([self.loaded.match(image, reports, mask)])
        for first, batch in self._batches(subjects):
            with self.loaded.autocast():
                tokens, mask = self.loaded.encode(*batch)
                text, packing = self.loaded.tokenize(reports[first : first + len(tokens)])
                states = fused.fuse(*text, fused.project_image(tokens, mask), packing=packing)
                found.append(self._model.itm_head(states[:, 0]).float().softmax(-1)[:, 1])
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
        """Write a report for each image, or exam, in the words of the reports it was refined on.

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
        for first, (pixels, groups) in self._batches(images):
            count = len(pixels) if groups is None else len(groups.sizes)
            places = range(first, first + count)
            generators = [generator(seed, "generate", place) for place in places]
            reports += self.loaded.write_reports(pixels, decoding, generators, groups)[0]
        return reports

    @torch.no_grad()
    def features(self, images: Images, method: str | None = None) -> Array:
        """Give the frozen features that linear probing is trained on, (N, F).

        ``method`` is one of ``retfiner.vision.METHODS``; None is the backbone's own.

        Raises:
            InputError: If an image cannot be read, there is no such method, or an exam is given,
                for which there is :meth:`exam_features`.
        """
        found = []
        for _, (pixels, groups) in self._batches(images):
            if groups is not None:
                raise InputError(
                    "Features are of single images",
                    got="an exam",
                    expected="images, or exam_features(images) for those of an exam",
                )
            found.append(self._model.backbone.features(pixels, method))
        return _array(found)

    @overload
    def explain(
        self, image: ExamPictures, report: str, layer: int | None = None
    ) -> ExamExplanation: ...

    @overload
    def explain(self, image: ImageLike, report: str, layer: int | None = None) -> Explanation: ...

    def explain(
        self, image: Subject, report: str, layer: int | None = None
    ) -> Explanation | ExamExplanation:
        """Show where in an image, or in which image of an exam, each word of a report looks.

        There is a map for each word, of an exam one in each of its images. The cross-attention
        ``layer`` counts from 0 and is by default the middle one.

        Raises:
            InputError: If the model was refined without ITM, or there is no such layer.
        """
        from retfiner.explanation.explain import explain, explain_exam

        images = read_images(image)
        if not isinstance(image, ExamPictures):
            return explain(self.loaded, images[0], report, layer)
        return explain_exam(self.loaded, images, image.names, image.marks, report, layer)

    def _batches(self, images: Images) -> Iterator[tuple[int, tuple[Tensor, Groups | None]]]:
        """Read images and exams, as many at once as have no more than ``batch_size`` images.

        Yields:
            The place of the first, and the batch.
        """
        subjects = _listed(images)
        first = held = 0
        for place, subject in enumerate(subjects):
            count = len(subject.images) if isinstance(subject, ExamPictures) else 1
            if held and held + count > self.batch_size:
                yield first, self._batch(subjects[first:place])
                first, held = place, 0
            held += count
        yield first, self._batch(subjects[first:])

    def _batch(self, subjects: Sequence[Subject]) -> tuple[Tensor, Groups | None]:
        """Read images (N, C, S, S), and say which are of one exam; None if there are no exams."""
        pixels = self._pixels(subjects)
        if not any(isinstance(subject, ExamPictures) for subject in subjects):
            return pixels, None
        alone = torch.zeros(1, MARKS)
        marks = [s.marks if isinstance(s, ExamPictures) else alone for s in subjects]
        return pixels, Groups(tuple(map(len, marks)), torch.cat(marks))

    def _pixels(self, subjects: Sequence[Subject]) -> Tensor:
        pixels = [self._transform(image) for s in subjects for image in read_images(s)]
        return torch.stack(pixels).to(self.loaded.device)

    def require_contrast(self) -> None:
        """Refuse what only a model with a space for both can do.

        Raises:
            InputError: If it was refined without ITC and ITM.
        """
        if not self.can_compare:
            raise _lacks("no space that images and reports share", "itc or itm")


def _listed(images: Images) -> list[Subject]:
    """List images and exams; see :func:`as_image_list`."""
    if isinstance(images, ExamPictures):
        return [images]
    return list(as_image_list(images))  # type: ignore[arg-type]


def read_images(subject: Subject) -> list[Array]:
    """Read an image, or those of an exam, as training does: in [0, 1], a fundus in its colours.

    Raises:
        InputError: If one cannot be read.
    """
    if isinstance(subject, ExamPictures):  # what its files show, it says already
        return [to_grayscale(image) for image in subject.images]
    if isinstance(subject, str | Path):
        subject = as_seen(ImageAddress.parse(subject))
    return [to_grayscale(subject)]


def _paired(pictures: list[Subject], reports: list[str]) -> tuple[list[Subject], list[str]]:
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
    return torch.cat(parts).float().cpu().numpy()
