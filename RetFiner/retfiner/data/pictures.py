"""An exam as Python users have it: a list of pictures, arrays, files of volumes and folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from retfiner.common.errors import InputError
from retfiner.common.eyes import eye_of
from retfiner.data.exams import Content, Exam, Place, Slices, contents_of, kind_of, parts_of
from retfiner.data.pair_table import as_kind
from retfiner.vision.exams import marks_of
from retfiner.vision.images import ImageAddress
from retfiner.vision.images.in_memory import ImageLike
from retfiner.vision.images.kinds import seen_kind


@dataclass(frozen=True)
class ExamPictures:
    """The images of one exam that are looked at, in order.

    Attributes:
        images: K files, arrays or pictures.
        marks: (K, MARKS) where each is in its exam, see :mod:`retfiner.vision.exams`.
        names: What each is called: ``bscan OD, 13 of 25``.
    """

    images: list[ImageLike]
    marks: Tensor
    names: list[str]


def pictures_of(exam: Exam, slices: Slices) -> ExamPictures:
    """List the images of an exam of a table, as many as ``slices`` takes."""
    chosen = slices.choose(exam)
    places = [exam.place(number) for number in chosen]
    return _pictures(exam, chosen, places, [place.image for place in places])


def choose_pictures(
    images: Sequence[ImageLike], eye: str | Sequence[str], kind: str | Sequence[str], slices: Slices
) -> ExamPictures:
    """List the images of an exam, as many as ``slices`` takes.

    Images of one eye and kind are one volume, in the order given. A kind that is not named is seen
    from the file.

    Raises:
        InputError: If a file cannot be used, or eyes or kinds are not as many as images.
    """
    eyes, kinds = _for_each(eye, "eyes", images), _for_each(kind, "kinds", images)
    listed = [
        (picture, eye_of(e), seen)
        for image, e, k in zip(images, eyes, kinds, strict=True)
        for picture, seen in _each_picture(image, k)
    ]
    # Pictures in memory lie in no file: one of this name, told apart by their number.
    contents = (Content(ImageAddress(Path("given"), n)) for n in range(len(listed)))
    parts = parts_of(
        [(content, e, k) for content, (_, e, k) in zip(contents, listed, strict=False)]
    )
    exam = Exam(tuple(parts), "")
    chosen = slices.choose(exam)
    places = [exam.place(number) for number in chosen]
    return _pictures(exam, chosen, places, [listed[number][0] for number in chosen])


def _pictures(
    exam: Exam, chosen: Sequence[int], places: Sequence[Place], images: Sequence[ImageLike]
) -> ExamPictures:
    marks = [marks_of(place.position, place.eye, place.kind) for place in places]
    names = []
    for number, place in zip(chosen, places, strict=True):
        what = " ".join(word for word in (place.kind, place.eye) if word) or "image"
        names.append(f"{what}, {number + 1} of {len(exam)}")
    return ExamPictures(list(images), torch.tensor(marks), names)


def _for_each(words: str | Sequence[str], what: str, images: Sequence[ImageLike]) -> Sequence[str]:
    found = [words] * len(images) if isinstance(words, str) else words
    if len(found) != len(images):
        raise InputError(
            f"Images and their {what} do not go together",
            got=f"{len(found)} {what} for {len(images)} images",
            expected="one for each, or one for all",
        )
    return found


def _each_picture(image: ImageLike, kind: str) -> Iterator[tuple[ImageLike, str]]:
    """List the pictures of what was given, and the kind of each, as named or as seen."""
    if not isinstance(image, str | Path | ImageAddress):
        yield image, kind_of(kind)
        return
    address = image if isinstance(image, ImageAddress) else ImageAddress.parse(image)
    contents = contents_of(address)
    if isinstance(contents, str):
        raise InputError(f"The image {address} cannot be used", got=contents)
    for content in contents:
        seen = kind or kind_in(content.address)
        for number in range(content.images):
            yield as_kind(content.image(number), seen), kind_of(seen)


def kind_in(image: ImageAddress) -> str:
    """Return the kind of image that an address names, or that its file shows."""
    return image.read_as.modality or seen_kind(image)


def as_seen(image: ImageAddress) -> ImageAddress:
    """Return an address as what its file shows, where it does not say it itself."""
    return as_kind(image, kind_in(image))
