"""The table that is looked through, with the vectors of its B-scans and reports, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retfiner.api import RefinedModel, load_model
from retfiner.browse.config import BrowseConfig
from retfiner.common.errors import InputError
from retfiner.data.manifest import NO_PATIENT_COLUMN, Manifest, read_manifest
from retfiner.evaluation.embedding import ImageStream
from retfiner.vision import ImageAddress, read_image

Array = NDArray[np.float32]

BATCH = 32


@dataclass(frozen=True)
class Collection:
    """N B-scans and the M distinct reports among theirs.

    Attributes:
        images: The B-scans; they are read again when they are shown.
        rows: Their rows in the CSV, the header being row 1.
        reports: The distinct reports, in the order of the CSV.
        report_of: (N,) which of them each B-scan carries.
        image_vectors: (N, E) unit vectors; None if the model does not compare.
        report_vectors: (M, E) unit vectors; likewise.
        left_out: How many rows could not be used.
    """

    images: list[ImageAddress]
    rows: list[int]
    reports: list[str]
    report_of: NDArray[np.int64]
    image_vectors: Array | None
    report_vectors: Array | None
    left_out: int

    def report(self, place: int) -> str:
        """Return the report of the B-scan at a place, from 0."""
        return self.reports[self.report_of[place]]

    def read(self, place: int) -> Array:
        """Read the B-scan at a place, from 0: (H, W) in [0, 1].

        Raises:
            InputError: If it can be read no longer; the message names the row, not the file.
        """
        try:
            return read_image(self.images[place])
        except InputError:
            raise InputError(
                f"The B-scan of row {self.rows[place]} can be read no longer",
                remedy="look whether its file is still there and intact",
            ) from None


class Opened(NamedTuple):
    """A model and the table it is shown with."""

    model: RefinedModel
    collection: Collection


@lru_cache(maxsize=1)
def open_collection(config: BrowseConfig) -> Opened:
    """Read a model and a table, and embed the table; a second call returns the same.

    Args:
        config: The settings.

    Raises:
        InputError: If the model or the table cannot be used.
    """
    manifest = read_manifest(
        config.data,
        config.image_root,
        image_column=config.image_column,
        report_column=config.report_column,
        patient_column=NO_PATIENT_COLUMN,  # what is not read cannot be shown
        slice_column=config.slice_column,
        on_bad_row=config.on_bad_row,
    )
    model = load_model(config.model, config.device, config.text_encoder)
    return Opened(model, embed(model, manifest, config.on_bad_row == "skip"))


def embed(model: RefinedModel, manifest: Manifest, skip: bool = False) -> Collection:
    """Embed the B-scans and, each once, the reports of a table.

    Args:
        model: The model; one that does not compare gets a collection without vectors.
        manifest: The pairs.
        skip: Leave out B-scans that cannot be decoded.

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
        images=manifest.images,
        rows=manifest.rows,
        reports=reports,
        report_of=np.array([place[report] for report in manifest.reports]),
        image_vectors=images,
        report_vectors=texts,
        left_out=len(every.skipped) + len(every) - len(manifest),
    )
