"""An exam as Python users have it: a list of pictures, arrays, files of volumes and folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from retfiner.common.errors import InputError
from retfiner.data.exams import Content, Exam, Slices, contents_of, kind_of, parts_of
from retfiner.vision.exams import marks_of
from retfiner.vision.images import ImageAddress
from retfiner.vision.images.headers import eye_of
from retfiner.vision.images.in_memory import ImageLike


def choose_pictures(
    images: Sequence[ImageLike], eye: str | Sequence[str], kind: str | Sequence[str], slices: Slices
) -> tuple[list[ImageLike], Tensor]:
    """List the images of an exam, as many as ``slices`` takes, with their marks, (K, MARKS).

    Images of one eye and kind are one volume, in the order given.

    Raises:
        InputError: If a file cannot be used, or eyes or kinds are not as many as images.
    """
    eyes, kinds = _for_each(eye, "eyes", images), _for_each(kind, "kinds", images)
    listed = [
        (picture, eye_of(e), kind_of(k))
        for image, e, k in zip(images, eyes, kinds, strict=True)
        for picture in _pictures_of(image)
    ]
    # Pictures in memory lie in no file: one of this name, told apart by their number.
    contents = (Content(ImageAddress(Path("given"), n)) for n in range(len(listed)))
    parts = parts_of(
        [(content, e, k) for content, (_, e, k) in zip(contents, listed, strict=False)]
    )
    exam = Exam(tuple(parts), "")
    chosen = slices.choose(exam)
    places = (exam.place(number) for number in chosen)
    marks = [marks_of(place.position, place.eye, place.kind) for place in places]
    return [listed[number][0] for number in chosen], torch.tensor(marks)


def _for_each(words: str | Sequence[str], what: str, images: Sequence[ImageLike]) -> Sequence[str]:
    found = [words] * len(images) if isinstance(words, str) else words
    if len(found) != len(images):
        raise InputError(
            f"Images and their {what} do not go together",
            got=f"{len(found)} {what} for {len(images)} images",
            expected="one for each, or one for all",
        )
    return found


def _pictures_of(image: ImageLike) -> list[ImageLike]:
    if not isinstance(image, str | Path | ImageAddress):
        return [image]
    address = image if isinstance(image, ImageAddress) else ImageAddress.parse(image)
    contents = contents_of(address)
    if isinstance(contents, str):
        raise InputError(f"The image {address} cannot be used", got=contents)
    return [content.image(number) for content in contents for number in range(content.images)]
