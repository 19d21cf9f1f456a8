"""The table that is looked through, with its vectors in memory, and what is nearest in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retfiner.api import RefinedModel, Subject, load_model, read_images
from retfiner.browse.config import BrowseConfig
from retfiner.common.errors import InputError
from retfiner.data.manifest import Manifest, read_manifest
from retfiner.data.pair_table import NO_PATIENT_COLUMN, Columns, Reading, by_its_training
from retfiner.data.pictures import ExamPictures
from retfiner.evaluation.embedding import ImageStream
from retfiner.vision import ImageAddress

Array = NDArray[np.float32]

BATCH = 32
SHORTLIST = 16
"""How many of the nearest by cosine the match head may put in another order."""


@dataclass(frozen=True)
class Collection:
    """N B-scans, or exams of several, and the M distinct reports among theirs.

    Attributes:
        subjects: The B-scans, or exams; they are read again when they are shown.
        rows: Their rows in the CSV, the header being row 1; of an exam its first.
        reports: The distinct reports, in the order of the CSV.
        report_of: (N,) which of them each B-scan carries.
        image_vectors: (N, E) unit vectors; None if the model does not compare.
        report_vectors: (M, E) unit vectors; likewise.
        left_out: How many rows could not be used.
    """

    subjects: list[ImageAddress] | list[ExamPictures]
    rows: list[int]
    reports: list[str]
    report_of: NDArray[np.int64]
    image_vectors: Array | None
    report_vectors: Array | None
    left_out: int

    @property
    def noun(self) -> str:
        """What it is of."""
        is_exams = bool(self.subjects) and isinstance(self.subjects[0], ExamPictures)
        return "exam" if is_exams else "B-scan"

    def report(self, place: int) -> str:
        """Return the report of the B-scan at a place, from 0."""
        return self.reports[self.report_of[place]]

    def read(self, place: int) -> list[Array]:
        """Read the B-scan, or the images of the exam, at a place, from 0: each in [0, 1].

        Raises:
            InputError: If one can be read no longer; the message names the row, not the file.
        """
        try:
            return read_images(self.subjects[place])
        except InputError:
            raise InputError(
                f"The {self.noun} of row {self.rows[place]} can be read no longer",
                remedy="look whether its file is still there and intact",
            ) from None


class Opened(NamedTuple):
    """A model and the table it is shown with."""

    model: RefinedModel
    collection: Collection


@lru_cache(maxsize=1)
def open_collection(config: BrowseConfig) -> Opened:
    """Read a model and a table, and embed the table; a second call returns the same.

    Raises:
        InputError: If the model or the table cannot be used.
    """
    model = load_model(config.model, config.device, config.text_encoder)
    settings = model.loaded.description["settings"]
    columns = Columns.as_trained(settings, config)
    if columns.group is None:
        columns = replace(columns, patient=NO_PATIENT_COLUMN)  # what is not read cannot be shown
    reading = Reading.as_trained(settings, config.data)
    with by_its_training():
        manifest = read_manifest(
            config.data, config.image_root, columns, on_bad_row=config.on_bad_row, reading=reading
        )
    return Opened(model, embed(model, manifest, config.on_bad_row == "skip"))


def embed(model: RefinedModel, manifest: Manifest, skip: bool = False) -> Collection:
    """Embed the B-scans, or exams, and, each once, the reports of a table, if the model compares.

    Raises:
        InputError: If a B-scan cannot be decoded and is not to be left out, or none is left.
    """
    every, images, texts = manifest, None, None
    if model.can_compare:
        manifest, embedded = ImageStream(model.loaded, BATCH).embed_pairs(every, skip)
        images = embedded.numpy()
    reports = list(dict.fromkeys(manifest.reports))
    if model.can_compare:
        texts = model.encode_texts(reports)
    place = {report: index for index, report in enumerate(reports)}
    return Collection(
        subjects=manifest.images
        if manifest.exams is None
        else [model.exam(exam) for exam in manifest.exams],
        rows=manifest.rows,
        reports=reports,
        report_of=np.array([place[report] for report in manifest.reports]),
        image_vectors=images,
        report_vectors=texts,
        left_out=len(every.skipped) + len(every) - len(manifest),
    )


class Neighbour(NamedTuple):
    """A B-scan or distinct report, by its place from 0, near to what was asked about.

    ``match`` is the probability of the match head, not calibrated; None if it was not asked.
    """

    place: int
    cosine: float
    match: float | None = None


def nearest_reports(
    model: RefinedModel, collection: Collection, subject: Subject, by_match: bool
) -> list[Neighbour]:
    """Find the reports nearest to a B-scan, or exam, at most :data:`SHORTLIST`."""
    assert collection.report_vectors is not None
    found = _nearest(collection.report_vectors @ model.encode_images(subject)[0])
    if not by_match:
        return found
    return _by_match(found, model.match(subject, [collection.reports[n.place] for n in found]))


def nearest_bscans(
    model: RefinedModel, collection: Collection, words: str, by_match: bool
) -> list[Neighbour]:
    """Find the B-scans, or exams, nearest to words, at most :data:`SHORTLIST`.

    Raises:
        InputError: If one of them can be read no longer, or the text has no words.
    """
    assert collection.image_vectors is not None
    found = _nearest(collection.image_vectors @ model.encode_texts(words)[0])
    if not by_match:
        return found
    places = [neighbour.place for neighbour in found]
    try:
        matches = model.match([collection.subjects[place] for place in places], words)
    except InputError:
        for place in places:
            collection.read(place)  # which names the row, not the file, if it is one of these
        raise
    return _by_match(found, matches)


def own_report(collection: Collection, place: int) -> tuple[float, int]:
    """Return the cosine of a B-scan and its own report, and the latter's rank among all, from 1."""
    assert collection.image_vectors is not None and collection.report_vectors is not None
    cosines = collection.report_vectors @ collection.image_vectors[place]
    own = cosines[collection.report_of[place]]
    return float(own), 1 + int((cosines > own).sum())


def _nearest(cosines: Array) -> list[Neighbour]:
    places = np.argsort(-cosines, kind="stable")[:SHORTLIST]
    return [Neighbour(int(place), float(cosines[place])) for place in places]


def _by_match(found: list[Neighbour], matches: Array) -> list[Neighbour]:
    judged = [n._replace(match=float(m)) for n, m in zip(found, matches, strict=True)]
    return [judged[rank] for rank in np.argsort(-matches, kind="stable")]
