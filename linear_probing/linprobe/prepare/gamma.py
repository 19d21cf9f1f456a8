"""GAMMA: glaucoma grades, 100 labelled samples with an OCT volume of a Topcon Maestro each.

As downloaded, with the OCT in one of two layouts, of which the raw volume counts::

    Glaucoma_grading/training/glaucoma_grading_training_GT.xlsx    data, non, early, mid_advanced
    Glaucoma_grading/training/multi-modality_images/0001/0001.jpg              fundus, not used
    Glaucoma_grading/training/multi-modality_images/0001/0001/<k>_image.jpg    256 B-scans, or
    Glaucoma_grading/training/multi-modality_images/0001/0001_Sequence/*_OCT_Iowa.mhd and .raw

The sheet names samples by bare numbers, the folders by four digits. Test folders have no labels.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from linprobe.prepare.files import find_file, list_files, scan_order
from linprobe.prepare.spec import BScan, DataSetSpec, Listing, Options, Slices, bscans_of
from linprobe.prepare.tables import read_table
from linprobe.prepare.volumes import slices_of_images, slices_of_mhd
from retfiner.common.errors import InputError, shorten

CLASSES = ("non", "early", "mid_advanced")
TABLE = "glaucoma_grading_training_GT.xlsx"
LAYOUT = "multi-modality_images/<n>/<n>/<k>_image.jpg or <n>_Sequence/<n>_Sequence_OCT_Iowa.mhd"
_SLICE = re.compile(r"\d+_image", re.IGNORECASE)


def find(folder: Path, options: Options) -> Listing:
    """Find the B-scans that are wanted of each labelled sample.

    Raises:
        InputError: If the sheet or a volume is missing.
    """
    files = list_files(folder, (".xlsx", ".mhd", ".jpg", ".jpeg", ".png"))
    table = find_file(folder, files, TABLE, "download the training set with its labels")
    labels = _labels(folder / table)
    volumes = _volumes(files, table.parent)
    missing = [f"{sample:04d}" for sample in labels if sample not in volumes]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(labels)} samples of {TABLE} have no OCT volume in {folder}",
            got=f"nothing for {shorten(missing)}",
            expected=LAYOUT,
            remedy="complete the download; fundus images alone are not enough",
        )
    bscans: list[BScan] = []
    for sample, label in labels.items():
        name = f"{sample:04d}"
        slices = _slices(folder, volumes[sample])
        bscans += bscans_of(slices, options.bscan, f"sample {name}", name, label, patient=name)
    return Listing(bscans, [], counts={"": len(labels)})


def _labels(table: Path) -> dict[int, str]:
    """Read the grade of each sample."""
    labels: dict[int, str] = {}
    for row in read_table(table, ("data", *CLASSES)).to_dict("records"):
        grades = [name for name in CLASSES if row[name] == "1"]
        rest = [row[name] for name in CLASSES if row[name] not in ("0", "1", "")]
        if not row["data"].isdecimal() or len(grades) != 1 or rest:
            raise InputError(
                f"{table}: a sample without one grade",
                got=", ".join(f"{name} {row[name]!r}" for name in ("data", *CLASSES)),
                expected="a number, and a 1 in one of the three columns",
                remedy="download the table again",
            )
        if labels.setdefault(int(row["data"]), grades[0]) != grades[0]:
            raise InputError(f"{table}: sample {row['data']} has two grades")
    return labels


def _volumes(
    files: Sequence[PurePosixPath], beside: PurePosixPath
) -> dict[int, list[PurePosixPath]]:
    """Find the files of each sample's volume; what lies below the sheet's folder counts first."""
    ours: dict[int, list[PurePosixPath]] = defaultdict(list)
    elsewhere: dict[int, list[PurePosixPath]] = defaultdict(list)
    for path in files:
        sample = _sample_of(path)
        if sample is not None:
            (ours if beside in path.parents else elsewhere)[sample].append(path)
    return ours or elsewhere


def _sample_of(path: PurePosixPath) -> int | None:
    """Tell the sample a B-scan or a volume's header is of, None if it is neither."""
    around = path.parent.name
    if path.suffix.lower() == ".mhd":
        around = re.sub(r"_sequence$", "", around, flags=re.IGNORECASE)
    elif not _SLICE.fullmatch(path.stem):
        return None
    return int(around) if around.isdecimal() else None


def _slices(folder: Path, paths: Sequence[PurePosixPath]) -> Slices:
    headers = [path for path in paths if path.suffix.lower() == ".mhd"]
    if headers:
        return slices_of_mhd(folder, headers[0])
    return slices_of_images(folder, scan_order(paths))


SPEC = DataSetSpec(
    name="GAMMAv2",
    task="no, early, or moderate to advanced glaucoma",
    classes=CLASSES,
    licence="CC BY-NC-ND (to be checked with the data)",
    where="https://gamma.grand-challenge.org/",
    citation=(
        "Wu et al.: GAMMA challenge: Glaucoma grAding from Multi-Modality imAges. "
        "Medical Image Analysis 90, 102938, 2023"
    ),
    patients="sample",
    find=find,
    layout=f"each class in {TABLE}",
    published={"": 100},
    unit="samples",
    volumes=True,
)
