"""Duke iAMD: intermediate AMD against controls, 384 volumes of SD-OCT.

As downloaded (several archives), MATLAB version 5 with ``images``: depth, A-scans, B-scans::

    AMD/Farsiu_Ophthalmology_2013_AMD_Subject_1001.mat ... 1269.mat
    Control/Farsiu_Ophthalmology_2013_Control_Subject_1001.mat ... 1115.mat

Patients, traps and licence of this and all other sets: ``docs/data_sets.md``.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from linprobe.prepare.files import list_files
from linprobe.prepare.spec import BScan, DataSetSpec, LeftOut, Listing, Options, bscans_of
from linprobe.prepare.volumes import mat_shape, slices_of_volume
from retfiner.common.errors import InputError

CLASSES = ("AMD", "Control")
VARIABLE = "images"
_NAME = re.compile(r"Farsiu_Ophthalmology_2013_(AMD|Control)_Subject_(\d+)", re.IGNORECASE)


def find(folder: Path, options: Options) -> Listing:
    """Find the B-scans that are wanted of each volume; of the files, headers alone are read.

    Raises:
        InputError: If a file is damaged or no volume.
    """
    files = list_files(folder, (".mat",))
    bscans: list[BScan] = []
    volumes: Counter[str] = Counter()
    unknown = []
    for path in files:
        match = _NAME.fullmatch(path.stem)
        if match is None:
            unknown.append(path.name)
            continue
        shape = mat_shape(folder / path, VARIABLE)
        if len(shape) != 3:
            got = f"images of shape {shape}"
            raise InputError(f"{path} holds no volume", got=got, expected="(512, 1000, 100)")
        label = "AMD" if match[1].casefold() == "amd" else "Control"
        name = f"{label}_{int(match[2])}"
        slices = slices_of_volume(folder, path, VARIABLE, 2, shape[2])
        bscans += bscans_of(slices, options.bscan, str(path), name, label, patient=name)
        volumes[label] += 1
    problem = "MATLAB files are not named like this data set's"
    remedy = "give the folder with the volumes of this data set alone"
    return Listing(bscans, [], [LeftOut(problem, unknown, len(files), remedy)], volumes)


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
    find=find,
    layout="Farsiu_Ophthalmology_2013_{AMD,Control}_Subject_<number>.mat",
    published={"AMD": 269, "Control": 115},
    unit="volumes",
    volumes=True,
)
