"""Harvard-GDP: glaucoma detection, one OCT volume of each of 1,000 patients.

As downloaded::

    rnflt_maps/data_0001.npz ...    thickness maps, not used here
    Bscan/data_0001.npz ...         ``bscans``, three-dimensional
    ReadMe/data_summary.csv         ``filename``, ``glaucoma``, ``glaucoma_detection_use``, ``age``,
                                    ``gender``, ``race``, ``hispanic`` (FairVision: ``ethnicity``)

- Label: ``glaucoma`` of the table (yes/no or 1/0); without the table, of the archives themselves.
- Age, sex, race, ethnicity: of the same (archives: ``male``, and numbers as FairVision's README has
  them; -1 is unknown); age is a value to predict as well.
- Patient: one sample each, ``data_0001``.
- B-scans: the central one of each volume; ``--bscan`` takes others.
- Split: ours, random by patient, so that all data sets are divided alike. The authors' own,
  ``glaucoma_detection_use``, has no validation set; ``--split_file`` can bring it in.

Traps: thickness maps and volumes have the same file names, so that archives are told apart by what
they hold. ``filename`` is given with or without ``.npz``. Which axis of ``bscans`` counts B-scans
is nowhere said with the data, and most are cubes of 200. All six public loaders that were found
take the first, among them the authors' own for data of the same kind (``src/data_handler.py`` of
FairVision: ``for img in oct_img``) and the MIRAGE benchmark's, and so do we; ``slice_axis.jpg``
beside the data set shows it, and ``--slice_axis last`` takes the last. B-scans are written as they
lie in the array, neither turned nor mirrored. Harvard-GF and FairVision, of the same group, are
read as well where they have glaucoma's label: their volumes are called ``oct_bscans``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from linprobe.prepare.files import by_key, find_file, list_files
from linprobe.prepare.show import picture_of_axes
from linprobe.prepare.spec import BScan, DataSetSpec, LeftOut, Listing, Options, bscans_of
from linprobe.prepare.tables import match, read_table
from linprobe.prepare.volumes import Shape, npz_shapes, read_npz_words, slices_of_volume
from retfiner.common.errors import InputError, shorten
from retfiner.common.patients import TARGET

CLASSES = ("Glaucoma", "NonGlaucoma")
TABLES = ("data_summary.csv", "data_summary_glaucoma.csv")
MEMBERS = ("bscans", "oct_bscans")
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
"""Of each group, the names it goes by, and the published words for each of its values."""
_MEMBERS_ABOUT = ("age", *(name for names, _ in _ABOUT.values() for name in names))


def find(folder: Path, options: Options) -> Listing:
    """Find the B-scans that are wanted of each volume; of the volumes, headers alone are read.

    Raises:
        InputError: If volumes or labels are missing.
    """
    files = list_files(folder, (".npz", ".csv"))
    volumes = _volumes(folder, [path for path in files if path.suffix.lower() == ".npz"])
    paths = by_key(volumes, lambda path: path.stem.casefold(), "volumes")
    names = {path.name.casefold() for path in files}
    table = next((name for name in TABLES if name in names), None)
    notes: list[str] = []
    left_out: list[LeftOut] = []
    if table is not None:
        table_path = find_file(folder, files, table, "download ReadMe as well")
        labels, about, left_out = _labels_of_table(folder / table_path, paths)
    else:
        notes.append(f"No {TABLES[0]}: the labels are those of the archives.")
        words = {
            path: read_npz_words(folder / path, ("glaucoma", *_MEMBERS_ABOUT)) for path in volumes
        }
        labels = {path: _label(word.get("glaucoma", ""), str(path)) for path, word in words.items()}
        about = {path: _about(word) for path, word in words.items()}
    known = {name: sum(name in about[p] for p in labels) for name in ("age", *_ABOUT)}
    told = ", ".join(f"{name} of {n}" for name, n in known.items() if n)
    notes += [f"Known of {len(labels)} patients: {told}."] * bool(told)
    axis = 2 if options.slice_axis == "last" else 0
    bscans: list[BScan] = []
    for path, label in labels.items():
        name, shape = volumes[path]
        slices = slices_of_volume(folder, path, name, axis, shape[axis])
        found = bscans_of(slices, options.bscan, str(path), path.stem, label, patient=path.stem)
        bscans += [replace(bscan, about=about[path]) for bscan in found]
    first = next(iter(volumes))
    member, shape = volumes[first]
    if options.slice_axis is None:
        odd = (
            ", though the last is the one that differs" if shape[0] == shape[1] != shape[2] else ""
        )
        notes.append(
            f"The first axis of {member} {shape} was taken to count B-scans of {shape[1]} x "
            f"{shape[2]}, as public loaders take it{odd}: look at slice_axis.jpg, which shows a "
            "slice along either; --slice_axis last takes the last."
        )
    if any(member != MEMBERS[0] for member, _ in volumes.values()):
        notes.append(
            "oct_bscans instead of bscans: these are volumes of Harvard-GF or FairVision, other "
            "data sets of the same group (and of the same patients, maybe), read alike."
        )
    picture = partial(picture_of_axes, folder / first, member, shape, axis)
    counts = {"": len(labels)}
    return Listing(bscans, notes, left_out, counts, {"slice_axis.jpg": picture})


def _volumes(folder: Path, archives: list[PurePosixPath]) -> dict[PurePosixPath, tuple[str, Shape]]:
    """Find the archives that hold B-scans: name of the array, and its shape."""
    volumes: dict[PurePosixPath, tuple[str, Shape]] = {}
    for path in archives:
        shapes = npz_shapes(folder / path)
        for name in MEMBERS:
            if len(shapes.get(name, ())) == 3 and all(shapes[name]):
                volumes.setdefault(path, (name, shapes[name]))
    if not volumes:
        names = " or ".join(MEMBERS)
        raise InputError(
            f"There are no OCT volumes in {folder}",
            got=f"{len(archives)} .npz files without {names}: {shorten(list(map(str, archives)))}",
            expected=f"Bscan/data_<n>.npz with {names} of three axes",
            remedy="download the B-scans as well; thickness maps alone are not enough",
        )
    return volumes


def _labels_of_table(
    table: Path, volumes: dict[str, PurePosixPath]
) -> tuple[dict[PurePosixPath, str], dict[PurePosixPath, dict[str, str]], list[LeftOut]]:
    """Read the label of each volume from the table, and what else it says of the patient."""
    rows = read_table(table, ("filename", "glaucoma"))
    rows["label"] = [
        _label(word, f"{table.name}, {name}")
        for word, name in zip(rows["glaucoma"], rows["filename"], strict=True)
    ]
    names = rows["filename"].str.replace("\\", "/").str.split("/").str[-1].str.casefold()
    keys = names.str.removesuffix(".npz").tolist()
    again = "complete the download"
    found, left_out = match(rows, "filename", keys, volumes, table.name, "volume", again)
    labels: dict[PurePosixPath, str] = {}
    for row in found.itertuples():
        if labels.setdefault(row.place, row.label) != row.label:
            raise InputError(f"{table.name}: {row.filename} has two labels", remedy="correct it")
    about = {row["place"]: _about(row) for row in found.to_dict("records")}
    return labels, about, left_out


def _about(words: Mapping[str, str]) -> dict[str, str]:
    """Give age and groups by the names of ``split.csv``; what nobody published words for, is not.

    ``words`` are of a row of the table or of an archive, numbers without a needless ``.0``.
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


def _label(word: str, where: str) -> str:
    label = _WORDS.get(word.casefold())
    if label is None:
        raise InputError(f"{where}: no label", got=repr(word), expected="yes, no, 1 or 0")
    return label


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
