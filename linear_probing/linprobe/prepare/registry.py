"""The data sets that can be prepared: a line each."""

from __future__ import annotations

from collections.abc import Mapping

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

DATASETS: Mapping[str, DataSetSpec] = {
    "Duke_iAMD": duke_iamd.SPEC,
    "Harvard_Glaucoma": harvard_glaucoma.SPEC,
    "Noor_Eye_Hospital": noor.SPEC,
    "OCTDL": octdl.SPEC,
    "OCTID": octid.SPEC,
    "NEHUT2D": nehut2d.SPEC,
    "GAMMAv2": gamma.SPEC,
    "Kermany": kermany.SPEC,
    "Srinivasan": srinivasan.SPEC,
    "OLIVES": olives.SPEC,
}

ALIASES: Mapping[str, str] = {"GAMMA": "GAMMAv2"}
"""What the MIRAGE benchmark's ready-made archives call a data set, where it differs."""


def find_spec(name: str) -> tuple[DataSetSpec, tuple[str, ...]]:
    """Find a data set by name.

    Returns:
        The data set, and other names its folder may have.

    Raises:
        InputError: If there is no such data set.
    """
    spec = DATASETS.get(ALIASES.get(name, name))
    if spec is None:
        raise InputError(
            f"There is no data set {name}",
            got=name,
            expected=", ".join(DATASETS),
            remedy="for pictures of your own: prepare_dataset.py folder --source DIR",
        )
    return spec, tuple(alias for alias, meant in ALIASES.items() if meant == spec.name)
