"""What a data set's own file tells the rest: who it is, and which B-scans lie where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

GrayImage = NDArray[np.uint8]
"""(H, W), 8 bit, as it is written."""

BScanChoice = Literal["central", "all"] | int
"""Which B-scans of a volume: the central one (index n // 2), all, or the one with this index."""


@dataclass(frozen=True)
class Options:
    """What a user may choose about how a download is read.

    Attributes:
        bscan: Which B-scans of a volume; of no effect, and refused, where there are no volumes.
        label: NEHUT2D alone: the B-scan's own label or the patient's diagnosis.
        slice_axis: Harvard_Glaucoma alone: the axis of ``bscans`` that counts B-scans; None tells
            it from the shape.
        labels: A folder of your own alone: the table that names pictures and their classes.
        patient_regex: A folder of your own alone: its group finds the patient in a picture's path.
    """

    bscan: BScanChoice = "central"
    label: Literal["bscan", "patient"] = "bscan"
    slice_axis: Literal["first", "last"] | None = None
    labels: Path | None = None
    patient_regex: str | None = None


@dataclass(frozen=True)
class BScan:
    """One B-scan of a download, not read yet.

    Attributes:
        name: Stem of the file to write, unique in the data set; letters, digits, ``-_.`` only.
        label: Class, and name of the class folder.
        patient: Whose it is, unique over all classes; None where nobody knows.
        source: File it comes from, relative to the download, with ``#k`` for slice k.
        read: Reads it; can be sent to another process. Raises InputError naming the file.
        split: The data set's own split (``train``, ``val`` or ``test``), where it is kept.
    """

    name: str
    label: str
    patient: str | None
    source: str
    read: Callable[[], GrayImage]
    split: str | None = None


@dataclass(frozen=True)
class Listing:
    """What was found in a download.

    Attributes:
        bscans: The B-scans, in a fixed order.
        notes: What a user must know: rows left out and why, patients merged, own split kept.
    """

    bscans: list[BScan]
    notes: list[str]


@dataclass(frozen=True)
class DataSetSpec:
    """A data set that can be prepared.

    Attributes:
        name: As the probing scripts name it.
        task: What is told apart, in a few words.
        classes: Class names, as folders; where a download has none of one, that is an error.
        licence: Of the data.
        where: Address of the download.
        citation: Whom to cite.
        patients: How a patient is known, in words; says so where none is.
        list_bscans: Finds the B-scans in an unpacked download.
        volumes: Whether ``--bscan`` applies.
        zero_borders: Whether white borders left by rotation are zeroed by default.
        split: Default shares of train, val and test.
    """

    name: str
    task: str
    classes: tuple[str, ...]
    licence: str
    where: str
    citation: str
    patients: str
    list_bscans: Callable[[Path, Options], Listing]
    volumes: bool = False
    zero_borders: bool = False
    split: tuple[float, float, float] = (0.5, 0.25, 0.25)
