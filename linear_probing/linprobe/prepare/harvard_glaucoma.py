"""Harvard-GDP: glaucoma detection, one OCT volume of each of 1,000 patients.

As downloaded::

    rnflt_maps/data_0001.npz ...    thickness maps, not used here
    Bscan/data_0001.npz ...         ``bscans``, three-dimensional
    ReadMe/data_summary.csv         ``filename``, ``glaucoma``, ``glaucoma_detection_use``, ...

- Label: ``glaucoma`` of the table (yes/no or 1/0); without the table, of the archives themselves.
- Patient: one sample each, ``data_0001``.
- B-scans: the central one of each volume; ``--bscan`` takes others.
- Split: ours, random by patient, so that all data sets are divided alike. The authors' own,
  ``glaucoma_detection_use``, has no validation set; ``--split_file`` can bring it in.

Traps: thickness maps and volumes have the same file names, so that archives are told apart by what
they hold. ``filename`` is given with or without ``.npz``. Readers disagree on whether the first or
the last axis of ``bscans`` counts B-scans (nobody could check it here): it is taken to be the one
that differs from two equal ones, and where that does not decide, ``--slice_axis`` has to. B-scans
are written as they lie in the array, neither turned nor mirrored.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path, PurePosixPath

from linprobe.prepare.finding import (
    chosen_scans,
    find_file,
    list_files,
    renamed,
    require_classes,
    safe_stem,
    tolerate,
)
from linprobe.prepare.pixels import Shape, npz_shapes, read_npz_slice, read_npz_value
from linprobe.prepare.sheets import read_csv
from linprobe.prepare.spec import BScan, DataSetSpec, Listing, Options
from retfiner.common.errors import InputError, shorten

CLASSES = ("Glaucoma", "NonGlaucoma")
TABLE = "data_summary.csv"
MEMBER = "bscans"
N_PATIENTS = 1000
_WORDS = {
    **dict.fromkeys(("1", "1.0", "yes", "true"), "Glaucoma"),
    **dict.fromkeys(("0", "0.0", "no", "false"), "NonGlaucoma"),
}


def list_bscans(folder: Path, options: Options) -> Listing:
    """Find the B-scans that are wanted of each volume; of the volumes, headers alone are read.

    Raises:
        InputError: If volumes or labels are missing, or the axis cannot be told.
    """
    files = list_files(folder, (".npz", ".csv"))
    volumes = _volumes(folder, [path for path in files if path.suffix.lower() == ".npz"])
    if any(path.name.casefold() == TABLE for path in files):
        labels, notes = _labels_of_table(folder, files, set(volumes))
    else:
        labels = {name: _label_of_archive(folder, path) for name, (path, _) in volumes.items()}
        notes = [f"No {TABLE}: the labels are those of the archives."]
    bscans: list[BScan] = []
    for name, label in labels.items():
        path, shape = volumes[name]
        bscans += _bscans_of(folder, path, shape, label, options)
    require_classes(Counter(labels.values()), CLASSES, folder, f"Bscan/data_<n>.npz and {TABLE}")
    if len(labels) != N_PATIENTS:
        notes.append(f"{len(labels)} patients; {N_PATIENTS} are published.")
    return Listing(renamed(bscans), notes)


def _volumes(folder: Path, archives: list[PurePosixPath]) -> dict[str, tuple[PurePosixPath, Shape]]:
    """Find the archives that hold B-scans, by file name without suffix."""
    volumes: dict[str, tuple[PurePosixPath, Shape]] = {}
    for path in archives:
        shape = npz_shapes(folder / path).get(MEMBER)
        if shape is None:
            continue
        name = path.stem.casefold()
        if name in volumes:
            raise InputError(
                f"Two volumes are named {path.stem}",
                got=f"{volumes[name][0]} and {path}",
                expected="one volume a patient",
                remedy="give one copy of the download",
            )
        volumes[name] = (path, shape)
    if not volumes:
        raise InputError(
            f"There are no OCT volumes in {folder}",
            got=f"{len(archives)} .npz files without {MEMBER}: {shorten(list(map(str, archives)))}",
            expected=f"Bscan/data_<n>.npz with {MEMBER}",
            remedy="download the B-scans as well; thickness maps alone are not enough",
        )
    return volumes


def _labels_of_table(
    folder: Path, files: list[PurePosixPath], names: set[str]
) -> tuple[dict[str, str], list[str]]:
    """Read the label of each volume from the table."""
    table = find_file(folder, files, TABLE, "download ReadMe as well")
    rows = read_csv(folder / table, ("filename", "glaucoma"))
    labels: dict[str, str] = {}
    absent = []
    for row in rows:
        name = PurePosixPath(row["filename"].replace("\\", "/")).name.casefold()
        name = name.removesuffix(".npz")
        label = _label(row["glaucoma"], f"{table}, {row['filename']}")
        if labels.get(name, label) != label:
            raise InputError(f"{table}: {row['filename']} has two labels", remedy="correct it")
        if name in names:
            labels[name] = label
        else:
            absent.append(row["filename"])
    again = "complete the download"
    notes = tolerate(f"rows of {table.name} have no volume", absent, len(rows), again)
    left = sorted(names - set(labels))
    return labels, notes + tolerate("volumes are not in the table", left, len(names), again)


def _label(word: str, where: str) -> str:
    label = _WORDS.get(word.casefold())
    if label is None:
        raise InputError(f"{where}: no label", got=repr(word), expected="yes, no, 1 or 0")
    return label


def _label_of_archive(folder: Path, path: PurePosixPath) -> str:
    return _label(str(read_npz_value(folder / path, "glaucoma")), str(path))


def slice_axis(shape: Shape, options: Options, where: str) -> int:
    """Tell which axis of a volume counts its B-scans.

    Returns:
        0 or 2.

    Raises:
        InputError: If it is no volume, or the shape does not decide.
    """
    if len(shape) != 3 or not all(shape):
        raise InputError(f"{where} holds no volume", got=f"{MEMBER} of shape {shape}")
    if options.slice_axis is not None:
        return {"first": 0, "last": 2}[options.slice_axis]
    first, middle, last = shape
    if middle == last != first:
        return 0
    if first == middle != last:
        return 2
    raise InputError(
        f"{where}: the shape does not tell which axis counts the B-scans",
        got=f"{MEMBER} of shape {shape}",
        expected="two equal axes, and another first or last",
        remedy="look at a B-scan and give --slice_axis first or --slice_axis last",
    )


def _bscans_of(
    folder: Path, path: PurePosixPath, shape: Shape, label: str, options: Options
) -> list[BScan]:
    axis = slice_axis(shape, options, str(path))
    stem = safe_stem(path.stem)
    return [
        BScan(
            name=stem + (f"_{index:03d}" if options.bscan == "all" else ""),
            label=label,
            patient=stem,
            source=f"{path}#{index}",
            read=partial(read_npz_slice, folder / path, MEMBER, axis, index),
        )
        for index in chosen_scans(options.bscan, shape[axis], str(path))
    ]


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
    list_bscans=list_bscans,
    volumes=True,
)
