"""Duke iAMD: intermediate AMD against controls, 384 volumes of SD-OCT.

As downloaded (several archives)::

    AMD/Farsiu_Ophthalmology_2013_AMD_Subject_1001.mat ... 1269.mat
    Control/Farsiu_Ophthalmology_2013_Control_Subject_1001.mat ... 1115.mat

Each file is MATLAB version 5 with ``images`` (512, 1000, 100): depth, A-scans, B-scans.

- Label: AMD or Control, from the file's name; a class folder around it must not contradict it.
- Patient: the subject number with the class, since both classes count from 1001. One volume each.
- B-scans: the central one of each volume, index 50 of 100; ``--bscan`` takes others.
- Split: ours, random by patient; the authors published none.

Trap: files saved by MATLAB in version 7.3 are HDF5, which is an error that says how to save them.
The terms of use were not found with the data: "research use" is what the page implies.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from pathlib import Path, PurePosixPath

from linprobe.prepare.finding import (
    chosen_scans,
    compare_counts,
    list_files,
    renamed,
    require_classes,
    tolerate,
)
from linprobe.prepare.pixels import mat_shape, read_mat_slice
from linprobe.prepare.spec import BScan, DataSetSpec, Listing, Options
from retfiner.common.errors import InputError

CLASSES = ("AMD", "Control")
VOLUMES = {"AMD": 269, "Control": 115}
VARIABLE = "images"
_NAME = re.compile(r"Farsiu_Ophthalmology_2013_(AMD|Control)_Subject_(\d+)", re.IGNORECASE)


def list_bscans(folder: Path, options: Options) -> Listing:
    """Find the B-scans that are wanted of each volume; of the files, headers alone are read.

    Raises:
        InputError: If a class or a B-scan is missing, or a file is damaged.
    """
    files = list_files(folder, (".mat",))
    named = [(path, _NAME.fullmatch(path.stem)) for path in files]
    notes = tolerate(
        "MATLAB files are not named like this data set's",
        [path.name for path, match in named if match is None],
        len(files),
        "give the folder with the volumes of this data set alone",
    )
    bscans: list[BScan] = []
    volumes: Counter[str] = Counter()
    for path, match in named:
        if match is not None:
            label = _label(path, match[1])
            volumes[label] += 1
            bscans += _bscans_of(folder, path, label, int(match[2]), options)
    require_classes(
        volumes, CLASSES, folder, "Farsiu_Ophthalmology_2013_{AMD,Control}_Subject_<number>.mat"
    )
    return Listing(renamed(bscans), notes + compare_counts(volumes, VOLUMES, "volumes"))


def _label(path: PurePosixPath, found: str) -> str:
    label = next(name for name in CLASSES if name.casefold() == found.casefold())
    around = [part.casefold() for part in path.parts[:-1]]
    other = next(name for name in CLASSES if name != label)
    if other.casefold() in around and label.casefold() not in around:
        raise InputError(
            f"{path} lies in the folder of the other class",
            got=f"{label} by its name, {other} by its folder",
            remedy="download the volumes again",
        )
    return label


def _bscans_of(
    folder: Path, path: PurePosixPath, label: str, subject: int, options: Options
) -> list[BScan]:
    shape = mat_shape(folder / path, VARIABLE)
    if len(shape) != 3:
        raise InputError(
            f"{path} holds no volume", got=f"images of shape {shape}", expected="(512, 1000, 100)"
        )
    return [
        BScan(
            name=f"{label}_{subject}" + (f"_{index:03d}" if options.bscan == "all" else ""),
            label=label,
            patient=f"{label}_{subject}",
            source=f"{path}#{index}",
            read=partial(read_mat_slice, folder / path, VARIABLE, index),
        )
        for index in chosen_scans(options.bscan, shape[2], str(path))
    ]


SPEC = DataSetSpec(
    name="Duke_iAMD",
    task="intermediate AMD or not",
    classes=CLASSES,
    licence="research use (no licence is stated with the data)",
    where="https://people.duke.edu/~sf59/RPEDC_Ophth_2013_dataset.htm",
    citation=(
        "Farsiu et al.: Quantitative classification of eyes with and without intermediate "
        "age-related macular degeneration using optical coherence tomography. "
        "Ophthalmology 121(1), 162-172, 2014"
    ),
    patients="class and subject number in the file name",
    list_bscans=list_bscans,
    volumes=True,
)
