"""Exams: one report for many images, which are found, kept in order, and drawn from.

A row of the table may name a B-scan, a file with all of its B-scans, or a folder of files; rows of
one patient that say the same in ``--group_column`` are one exam.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from retfiner.common.errors import InputError
from retfiner.common.eyes import eye_of
from retfiner.common.progress import track
from retfiner.common.seeds import generator
from retfiner.data.linked import number_linked
from retfiner.data.pair_table import PairRow, Problem, as_kind
from retfiner.vision.images import ImageAddress, count_images, is_image_file, why_unusable
from retfiner.vision.images.dicom import is_dicom
from retfiner.vision.images.headers import slice_of

SlicesName = Literal["central", "even", "random"]

_KINDS = (
    ("octa|angio|ffa|icg|^fa$", "angiography"),
    ("faf|autofluor", "autofluorescence"),
    ("oct|b-?scan|volume", "bscan"),
    ("fundus|cfp|colou?r", "fundus"),
    ("infra|^ir$|slo", "infrared"),
)
"""How tables name kinds of images; the first that fits."""


class Content(NamedTuple):
    """One file of what a row names, and how many images of it: all, or the one at its index."""

    address: ImageAddress
    images: int = 1

    def image(self, number: int) -> ImageAddress:
        """Return the address of one of its images, from 0."""
        return self.address if self.images == 1 else replace(self.address, index=number)


class Part(NamedTuple):
    """A file in its exam: its eye and kind, and where its images are in their volume.

    ``first`` is the place of its first image among the ``of`` images of a volume: a file that holds
    one, or files of one folder, eye and kind.
    """

    content: Content
    eye: str
    kind: str
    first: int
    of: int


class Place(NamedTuple):
    """An image of an exam, and where it is: along its volume from 0 to 1, in which eye, what."""

    image: ImageAddress
    position: float | None
    eye: str
    kind: str


@dataclass(frozen=True, slots=True)
class Exam:
    """The images of one report, in the order of the table.

    ``identity`` is the same for exams that share a file: they are no negatives of each other.
    """

    parts: tuple[Part, ...]
    identity: str

    def __len__(self) -> int:
        return sum(part.content.images for part in self.parts)

    @property
    def volumes(self) -> list[list[int]]:
        """The numbers of the images of each volume, in order."""
        found: dict[object, list[int]] = {}
        number = 0
        for part in self.parts:
            numbers = found.setdefault(_volume_of(part.content, part.eye, part.kind), [])
            numbers += range(number, number + part.content.images)
            number += part.content.images
        return list(found.values())

    def place(self, number: int) -> Place:
        """Return one of its images, from 0."""
        for part in self.parts:
            if number < part.content.images:
                position = (part.first + number) / (part.of - 1) if part.of > 1 else None
                return Place(part.content.image(number), position, part.eye, part.kind)
            number -= part.content.images
        raise IndexError(number)


@dataclass(frozen=True)
class Slices:
    """Which images of a large exam are used: at most so many, from the middle, evenly or any."""

    how: SlicesName = "even"
    most: int = 16
    seed: int = 0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Slices:
        """Return those that a training with such settings validated on."""
        return cls(settings["slices"], settings["max_slices"])

    def choose(self, exam: Exam, row: int = 0, epoch: int | None = None) -> list[int]:
        """Choose images of an exam, shared out among its volumes, none of which is left out.

        ``random`` ones depend on the seed, the row and the epoch; without an epoch they are even.
        """
        volumes, left = exam.volumes, self.most
        chosen: list[int] = []
        draws = generator(self.seed, "slices", -1 if epoch is None else epoch, row)
        for done, volume in enumerate(sorted(volumes, key=len)):
            count = min(len(volume), left // (len(volumes) - done))
            left -= count
            chosen += [volume[n] for n in self._among(len(volume), count, epoch is not None, draws)]
        return sorted(chosen)

    def _among(self, size: int, count: int, anew: bool, draws: object) -> list[int]:
        if self.how == "central":
            return list(range((size - count) // 2, (size - count) // 2 + count))
        if self.how == "random" and anew:
            import torch  # seconds: tables are read without it

            return torch.randperm(size, generator=draws)[:count].tolist()  # type: ignore[call-overload]
        return [(2 * n + 1) * size // (2 * count) for n in range(count)]


CENTRE = Slices("central", 1)
"""The one image that stands for an exam where there is room for one."""


def contents_of(image: ImageAddress) -> list[Content] | str:
    """Find what a cell names, without decoding it; or say why it cannot be used."""
    try:
        files = _files_in(image) if image.path.is_dir() else [image]
        contents = [_content_of(file) for file in files]
    except InputError as error:
        return error.in_one_line
    problems = (why_unusable(content.image(content.images // 2)) for content in contents)
    return next((problem for problem in problems if problem is not None), contents)


def _content_of(file: ImageAddress) -> Content:
    if file.index is not None or not is_image_file(file.path):
        return Content(file)
    return Content(file, count_images(file))


def _files_in(folder: ImageAddress) -> list[ImageAddress]:
    """List the images of a folder: DICOM by series and their number in it, others by name."""
    visible = (path for path in folder.path.iterdir() if not path.name.startswith("."))
    paths = sorted(filter(is_image_file, visible), key=_natural)
    if all(is_dicom(path) for path in paths):
        paths = _in_series(paths)
    if not paths:
        raise InputError(
            f"{folder.path} is a folder without images", expected="image files, one a B-scan"
        )
    return [replace(folder, path=path) for path in paths]


def _in_series(paths: Sequence[Path]) -> list[Path]:
    """Sort DICOM files, without those that hold no image: a DICOMDIR, a report."""
    places = {path: found for path in paths if (found := slice_of(path)) is not None}
    series = list(dict.fromkeys(uid for uid, _ in places.values()))
    return sorted(places, key=lambda path: (series.index(places[path][0]), places[path][1]))


def _natural(path: Path) -> list[object]:
    """Sort 2.png before 10.png."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]


def find_mixed_reports(rows: Sequence[PairRow]) -> list[Problem]:
    """Find the rows of exams that have several reports."""
    reports: dict[str | None, dict[str, int]] = {}
    for row in rows:
        reports.setdefault(row.group, {}).setdefault(row.report, row.number)
    return [
        Problem(
            index,
            "report",
            "exam with differing reports",
            f"rows {' and '.join(map(str, list(reports[row.group].values())[:2]))} of one exam",
            True,
        )
        for index, row in enumerate(rows)
        if len(reports[row.group]) > 1
    ]


def fill_reports(rows: Sequence[PairRow]) -> list[PairRow]:
    """Give rows without a report that of their exam: exports write it in the first row alone."""
    known = {row.group: row for row in reversed(rows) if row.report}
    return [
        replace(row, report=known[row.group].report)
        if not row.report and row.no_text is None and row.group in known
        else row
        for row in rows
    ]


def each_image(rows: Sequence[PairRow]) -> list[PairRow]:
    """Give each image of volumes and folders a row; what cannot be opened stays as it is."""
    listed = []
    for row in track(rows, "listing exams", len(rows), "row"):
        images = [row.image]
        if row.name and row.broken is None and row.unclear is None:
            found = contents_of(row.image)
            if not isinstance(found, str):
                images = [part.image(n) for part in found for n in range(part.images)]
        listed += [replace(row, image=image) for image in images]
    return listed


def gather(
    rows: Sequence[PairRow],
    contents: Mapping[ImageAddress, list[Content]],
    kinds: Mapping[Path, str],
) -> list[tuple[PairRow, Exam]]:
    """Put rows together to exams, each with its first row, in the order of those.

    ``kinds`` has what :func:`retfiner.data.kinds.see_kinds` saw of the files of rows that do not
    say it.
    """
    members: dict[str | None, list[PairRow]] = {}
    identities: dict[int, str] = {}  # of exams that share a file, straight or by way of another one
    linked = number_linked([(row.group, row.image.file) for row in rows])
    of_group: dict[str | None, str] = {}
    for row, number in zip(rows, linked, strict=True):
        members.setdefault(row.group, []).append(row)
        of_group[row.group] = identities.setdefault(number, str(row.image))
    exams = []
    for group, of_one in members.items():
        found = [
            (content._replace(address=as_kind(content.address, kind)), eye_of(row.eye),
             kind_of(kind))
            for row in of_one
            for content in contents[row.image]
            for kind in [row.modality or row.image.read_as.modality
                         or kinds.get(content.address.path, "")]
        ]  # fmt: skip
        exams.append((of_one[0], Exam(tuple(parts_of(found)), of_group[group])))
    return exams


def parts_of(found: Sequence[tuple[Content, str, str]]) -> Iterator[Part]:
    """Find where images, each with its eye and kind, are in their volumes."""
    sizes: Counter[object] = Counter()
    for content, eye, kind in found:
        sizes[_volume_of(content, eye, kind)] += content.images
    seen: Counter[object] = Counter()
    for content, eye, kind in found:
        volume = _volume_of(content, eye, kind)
        yield Part(content, eye, kind, seen[volume], sizes[volume])
        seen[volume] += content.images


def _volume_of(content: Content, eye: str, kind: str) -> object:
    """Name the volume that an image is of: its file if that holds several, or else its folder."""
    path, is_slice = content.address.path, content.address.index is not None
    return eye, kind, path if content.images > 1 or is_slice else path.parent


def kind_of(cell: str) -> str:
    """Read which kind of image a cell names; empty where it names none."""
    word = cell.strip().casefold()
    return next((kind for words, kind in _KINDS if re.search(words, word)), word and "other")


def describe_exams(exams: Sequence[Exam]) -> str:
    """Say in a line how many images exams have."""
    sizes = sorted(len(exam) for exam in exams)
    alone = sum(size == 1 for size in sizes)
    middle = sizes[len(sizes) // 2]
    if sizes[0] == sizes[-1] > 1:
        return f"{len(exams)} exams of {middle} images"
    text = f"{len(exams)} exams of {sizes[0]} to {sizes[-1]} images (median {middle}); "
    text += f"{alone} of one image"
    return text + (": --group_column changes nothing" if alone == len(exams) else "")
