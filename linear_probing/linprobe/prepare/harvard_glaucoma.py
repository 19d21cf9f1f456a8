"""Harvard-GDP: glaucoma detection, one OCT volume of each of 1,000 patients.

As downloaded::

    rnflt_maps/data_0001.npz ...    thickness maps of the same names, not used here
    Bscan/data_0001.npz ...         ``bscans``, three-dimensional
    ReadMe/data_summary.csv         ``filename``, ``glaucoma``, ``glaucoma_detection_use``, ``age``,
                                    ``gender``, ``race``, ``hispanic``

Age, sex, race and ethnicity go along; -1 is unknown, and age is a value to predict as well.
Which axis of ``bscans`` counts B-scans is nowhere said with the data, and most are cubes of 200.
All six public loaders that were found take the first, among them the authors' own for data of the
same kind (``src/data_handler.py`` of FairVision: ``for img in oct_img``) and the MIRAGE
benchmark's, and so do we; ``slice_axis.jpg`` beside the data set shows a slice along either, and
``--slice_axis last`` takes the last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from linprobe.prepare.files import by_key, find_file, list_files
from linprobe.prepare.show import picture_of_axes
from linprobe.prepare.spec import BScan, DataSetSpec, Listing, Options, bscans_of
from linprobe.prepare.tables import match, read_table
from linprobe.prepare.volumes import Shape, npz_shapes, slices_of_volume
from retfiner.common.errors import InputError, shorten
from retfiner.common.patients import TARGET

CLASSES = ("Glaucoma", "NonGlaucoma")
TABLE, VOLUME = "data_summary.csv", "bscans"
_WORDS = {
    **dict.fromkeys(("1", "1.0", "yes", "true"), "Glaucoma"),
    **dict.fromkeys(("0", "0.0", "no", "false"), "NonGlaucoma"),
}
_ABOUT: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "sex": (("gender", "male"), {"female": ("female", "0"), "male": ("male", "1")}),
    "race": (("race",), {
        "Asian": ("asian", "0"),
        "Black": ("black", "black or african american", "1"),
        "White": ("white", "white or caucasian", "2"),
    }),
    "ethnicity": (("ethnicity", "hispanic"), {
        "non-Hispanic": ("non-hispanic", "no", "0"), "Hispanic": ("hispanic", "yes", "1"),
    }),
}  # fmt: skip
"""Of each group, the columns it goes by, and the published words for each of its values."""


def find(folder: Path, options: Options) -> Listing:
    """Find the B-scans that are wanted of each volume; of the volumes, headers alone are read.

    Raises:
        InputError: If volumes or labels are missing.
    """
    files = list_files(folder, (".npz", ".csv"))
    table = folder / find_file(folder, files, TABLE, "download ReadMe as well")
    shapes = _volumes(folder, [path for path in files if path.suffix.lower() == ".npz"])
    volumes = by_key(shapes, lambda path: path.stem.casefold(), "volumes")
    rows = read_table(table, ("filename", "glaucoma"))
    names = rows["filename"].str.replace("\\", "/").str.split("/").str[-1].str.casefold()
    keys = names.str.removesuffix(".npz").tolist()
    again = "complete the download"
    found, left_out = match(rows, "filename", keys, volumes, TABLE, "volume", again)
    about = {row["place"]: _about(row) for row in found.to_dict("records")}
    axis = 2 if options.slice_axis == "last" else 0
    bscans: list[BScan] = []
    for row in found.drop_duplicates(["place", "glaucoma"]).itertuples():
        path, label = row.place, _WORDS.get(row.glaucoma.casefold())
        if label is None:
            raise InputError(f"{TABLE}, {row.filename}: no label", got=repr(row.glaucoma),
                             expected="yes, no, 1 or 0")  # fmt: skip
        slices = slices_of_volume(folder, path, VOLUME, axis, shapes[path][axis])
        wanted = bscans_of(slices, options.bscan, str(path), path.stem, label, patient=path.stem)
        bscans += [replace(bscan, about=about[path]) for bscan in wanted]
    known = {name: sum(name in told for told in about.values()) for name in ("age", *_ABOUT)}
    told = ", ".join(f"{name} of {n}" for name, n in known.items() if n)
    notes = [f"Known of {len(about)} patients: {told}."] * bool(told)
    first, shape = next(iter(shapes.items()))
    if options.slice_axis is None:
        odd = ", though the last is the one that differs" * (shape[0] == shape[1] != shape[2])
        notes.append(
            f"The first axis of {shape} was taken to count B-scans of {shape[1]} x {shape[2]}, as "
            f"public loaders take it{odd}: look at slice_axis.jpg, which shows a slice along "
            "either; --slice_axis last takes the last."
        )
    picture = partial(picture_of_axes, folder / first, VOLUME, shape, axis)
    counts = {"": found["place"].nunique()}
    return Listing(bscans, notes, left_out, counts, {"slice_axis.jpg": picture})


def _about(words: Mapping[str, str]) -> dict[str, str]:
    """Give age and groups by the names of ``split.csv``; what nobody published words for, is not.

    ``words`` are of a row of the table.
    """
    about: dict[str, str] = {}
    for column, (names, values) in _ABOUT.items():
        word = next((words[name].casefold() for name in names if words.get(name)), "")
        said = [value for value, theirs in values.items() if word in theirs]
        about |= {column: said[0]} if said else {}
    try:
        age = float(words.get("age", ""))
    except ValueError:
        age = math.nan
    if 0 <= age < 150:  # -1 is unknown
        about |= dict.fromkeys(("age", f"{TARGET}age"), f"{age:g}")
    return about


def _volumes(folder: Path, archives: list[PurePosixPath]) -> dict[PurePosixPath, Shape]:
    """Find the archives that hold B-scans, and their shapes."""
    shapes = {path: npz_shapes(folder / path).get(VOLUME, ()) for path in archives}
    volumes: dict[PurePosixPath, Shape] = {
        path: shape for path, shape in shapes.items() if len(shape) == 3 and all(shape)
    }
    if not volumes:
        raise InputError(
            f"There are no OCT volumes in {folder}",
            got=f"{len(archives)} .npz files without {VOLUME}: {shorten(list(map(str, archives)))}",
            expected=f"Bscan/data_<n>.npz with {VOLUME} of three axes",
            remedy="download the B-scans as well; thickness maps alone are not enough",
        )
    return volumes


SPEC = DataSetSpec(
    name="Harvard_Glaucoma",
    task="glaucoma or not",
    classes=CLASSES,
    licence="CC BY-NC-ND 4.0",
    where="https://github.com/Harvard-Ophthalmology-AI-Lab/Harvard-GDP",
    citation=(
        "Luo et al.: Harvard Glaucoma Detection and Progression: A Multimodal Multitask Dataset "
        "and Generalization-Reinforced Semi-Supervised Learning. ICCV 2023, 20471-20482"
    ),
    patients="one sample each, by file name",
    find=find,
    layout="Bscan/data_<n>.npz and data_summary.csv",
    published={"": 1000},
    unit="patients",
    volumes=True,
)
