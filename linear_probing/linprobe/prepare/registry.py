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
    """Find a data set by its name, or by the one that the MIRAGE benchmark's archives have.

    Raises:
        InputError: If there is no such data set.
    """
    spec = next((spec for spec in DATASETS.values() if name in (spec.name, spec.alias)), None)
    if spec is None or not name:
        raise InputError(
            f"There is no data set {name}",
            got=name,
            expected=", ".join(DATASETS),
            remedy="for pictures of your own: prepare_dataset.py folder --source DIR",
        )
    return spec
