"""The data sets that can be prepared: a line each."""

from __future__ import annotations

from linprobe.prepare import (
    duke_iamd,
    gamma,
    harvard_glaucoma,
    kermany,
    nehut2d,
    noor,
    octdl,
    octid,
    olives,
    srinivasan,
)
from linprobe.prepare.spec import DataSetSpec
from retfiner.common.errors import InputError

_FILES = (
    duke_iamd, harvard_glaucoma, noor, octdl, octid, nehut2d, gamma, kermany, srinivasan, olives,
)  # fmt: skip
DATASETS: dict[str, DataSetSpec] = {file.SPEC.name: file.SPEC for file in _FILES}


def find_spec(name: str) -> DataSetSpec:
    """Find a data set by its name.

    Raises:
        InputError: If there is no such data set.
    """
    if name not in DATASETS:
        raise InputError(
            f"There is no data set {name}",
            got=name,
            expected=", ".join(DATASETS),
            remedy="for pictures of your own: prepare_dataset.py folder --source DIR",
        )
    return DATASETS[name]
