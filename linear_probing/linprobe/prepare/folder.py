"""A folder of your own: pictures by class, or a table that names pictures and classes.

As it lies::

    DIR/<Class>/<picture>                      as torchvision's ImageFolder reads it, at any depth
    DIR/<Class>/<patient>/<picture>            with a folder a patient
    DIR/{train,test}/<Class>/<picture>         divided already, val to be made
    DIR/<anything>, with labels.csv            columns image and label or target_<name>, and maybe
                                               patient, eye, volume, sex, age, device,
                                               race, ethnicity

With columns ``target_<name>`` (grades, values, several labels an image) and no label, all pictures
lie in one folder, and the table holds what they show. The patient is the table's; else what
``--patient_regex`` finds in a picture's path; else what a known kind of name says; else the folder
below the class.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path, PurePosixPath

import numpy as np

from linprobe.prepare.files import list_files, safe_stem, squeeze, tolerate
from linprobe.prepare.spec import BScan, DataSetSpec, Listing, Options, one_spelling
from linprobe.prepare.splits import SPLIT_OF
from linprobe.prepare.tables import read_table
from linprobe.prepare.volumes import read_gray
from retfiner.common.errors import InputError, shorten
from retfiner.common.patients import (
    ABOUT,
    TARGET,
    in_several_classes,
    owner_in_name,
)
from retfiner.common.progress import track

NAME = "folder"
ALL = "images"
"""The one folder of pictures whose labels are all in columns."""
SIMILAR = 0.85
"""Class names more alike than this (difflib's ratio) are pointed out."""
FEW_PATIENTS = 10


def spec_of(name: str) -> DataSetSpec:
    """Describe somebody's own folder."""
    return DataSetSpec(
        name=safe_stem(name),
        task="as the classes say",
        classes=(),
        licence="as of the pictures",
        where="a folder of your own",
        citation="",
        patients="the table's column patient, --patient_regex, or the pictures' names",
        find=find,
    )


def find(folder: Path, options: Options) -> Listing:
    """Find the pictures and check them, each read once.

    Raises:
        InputError: If there are not two classes, a class is spelled in two ways, the same picture
            is in two classes, or many pictures cannot be read.
    """
    from retfiner.vision.images import READERS  # delayed: it needs torch

    files = list_files(folder, tuple(READERS))
    if options.labels is not None:
        bscans, notes = _from_table(folder, files, options.labels)
    else:
        bscans, notes = _from_folders(folder, files), []
    bscans, spellings = one_spelling(bscans)
    told = {bscan.patient for bscan in bscans if options.labels is not None} - {None}
    bscans = [
        bscan if bscan.patient in told else _with_patient(bscan, options.patient_regex)
        for bscan in bscans
    ]
    bscans, more = one_spelling(bscans)
    notes += list(dict.fromkeys([*spellings, *more]))
    missed = [bscan.source for bscan in bscans if options.patient_regex and not bscan.patient]
    if missed:
        problem = f"--patient_regex finds no patient in {len(missed)} of {len(bscans)} pictures"
        if len(missed) == len(bscans):
            raise InputError(problem, got=f"{options.patient_regex} in {shorten(missed, 3)}",
                             remedy="correct it")  # fmt: skip
        notes.append(f"{problem} ({shorten(missed, 3)}): each is one by itself.")
    labels = sorted({bscan.label for bscan in bscans})
    if options.labels is None or labels != [ALL]:
        notes += _check_names(labels)
    bscans = [replace(bscan, label=bscan.label.strip()) for bscan in bscans]
    by_name = [(b.patient or "", b.label) for b in bscans if b.patient not in told]
    if several := in_several_classes(by_name):
        notes.append(
            f"{len(several)} patients, known by names alone, are in several classes "
            f"({shorten(several, 3)}), and kept in one split: where numbers restart in each class, "
            "a --patient_regex that takes the class in tells them apart."
        )
    bscans, more = _readable_and_together(bscans)
    units = {(bscan.label, _unit(bscan)) for bscan in bscans}
    counts = Counter(label for label, _ in sorted(units))
    few = [f"{label} ({n})" for label, n in counts.items() if n < FEW_PATIENTS]
    notes += [f"Classes of fewer than {FEW_PATIENTS} patients: {', '.join(few)}."] * bool(few)
    return Listing(bscans, [*notes, *more])


def _from_folders(folder: Path, files: list[PurePosixPath]) -> list[BScan]:
    """Read classes off the folders; those around all pictures say nothing, those of splits do.

    What lies between class and picture, with a number in it, is a patient's folder.
    """
    around = [path.parts[:-1] for path in files]
    shared = 0
    while files and all(len(p) > shared + 1 and p[shared] == around[0][shared] for p in around):
        shared += 1
    bscans, flat = [], []
    for path in files:
        label, *below = path.parts[shared:-1] or ("",)
        split = SPLIT_OF.get(label.strip().casefold()) if below else None
        if split is not None:
            label, *below = below
        if not label:
            flat.append(str(path))
        patient = "/".join(part for part in below if re.search(r"\d", part)) or None
        read = partial(read_gray, folder / path)
        bscans.append(BScan(path.stem, label, patient, str(path), read, split))
    if flat or not files:
        raise InputError(
            f"{folder} is no folder of pictures by class",
            got=shorten(flat) or "no picture",
            expected="<Class>/<picture>, or a table with --labels",
        )
    return bscans


def _from_table(
    folder: Path, files: list[PurePosixPath], table: Path
) -> tuple[list[BScan], list[str]]:
    places: dict[str, PurePosixPath | None] = {}
    for path in files:  # a name that several folders have names none of them
        for name in {path.name, path.stem}:
            places[name] = None if name in places else path
    places |= {str(path): path for path in files}
    cells = read_table(table, ("image",))
    targets = [name for name in cells if name.startswith(TARGET)]
    if "label" not in cells and not targets:
        read_table(table, ("image", "label"))  # which says what is lacking
    found, absent = [], []
    for row in cells.to_dict("records"):
        image = PurePosixPath(row["image"].replace("\\", "/"))
        place = places.get(str(image)) or places.get(image.name)
        label = row.get("label", ALL).replace("/", "_")  # it becomes a folder
        if place is None or not label:
            absent.append(row["image"])
            continue
        about = {name: row[name] for name in ABOUT if row.get(name)}
        about |= {name: row[name] for name in targets}
        read, patient = partial(read_gray, folder / place), row.get("patient") or None
        found.append(BScan(place.stem, label, patient, str(place), read, about=about))
    problem = f"rows of {table.name} have no picture or no label"
    remedy = "give the folder that the table's paths begin in, and a label for each"
    notes = tolerate(problem, absent, len(cells), remedy)
    left = len(files) - len({bscan.source for bscan in found})
    return found, [*notes, *[f"{left} pictures are not in {table.name}: left out."] * bool(left)]


def _with_patient(bscan: BScan, pattern: str | None) -> BScan:
    """Say whose a picture is, where its path tells more than the folder below the class."""
    try:
        if pattern is None:
            patient = owner_in_name(PurePosixPath(bscan.source).stem).patient
        else:
            match = re.search(pattern, bscan.source)
            patient = match[1] if match else ""
        return replace(bscan, patient=patient or bscan.patient)
    except (re.error, IndexError) as error:
        raise InputError(
            "--patient_regex cannot be used",
            got=f"{pattern}: {error}",
            expected="a regular expression with one group, as (\\d+)_OD",
        ) from error


def _check_names(labels: list[str]) -> list[str]:
    """Refuse classes that differ in case or signs alone, and point out those that nearly do."""
    if len(labels) < 2:
        raise InputError("There are not two classes", got=", ".join(labels), expected="two or more")
    notes = []
    for one, other in combinations(labels, 2):
        plain = squeeze(one), squeeze(other)
        if plain[0] == plain[1]:
            raise InputError(
                "A class is spelled in two ways",
                got=f"{one!r} and {other!r}",
                expected="one name each",
            )
        if difflib.SequenceMatcher(None, *plain).ratio() > SIMILAR:
            notes.append(f"The classes {one} and {other} have nearly the same name.")
    return notes


def _readable_and_together(bscans: list[BScan]) -> tuple[list[BScan], list[str]]:
    """Read every picture; leave out what nobody can read, and give copies one patient."""
    from scipy.cluster.hierarchy import DisjointSet  # not for --list

    from retfiner.vision.images.perceptual import perceptual_hash, same_pairs

    def look(bscan: BScan) -> np.ndarray | None:
        try:
            return perceptual_hash(bscan.read().astype(np.float32))
        except InputError:
            return None

    with ThreadPoolExecutor(4) as pool:
        looks = pool.map(look, bscans)
        hashes = list(track(looks, "reading", len(bscans), "picture"))
    broken = [bscan.source for bscan, found in zip(bscans, hashes, strict=True) if found is None]
    notes = tolerate("pictures cannot be read", broken, len(bscans), "replace or remove them")
    kept = [bscan for bscan, found in zip(bscans, hashes, strict=True) if found is not None]
    pairs = same_pairs(np.stack([found for found in hashes if found is not None]))
    for what, torn in (
        ("class", [(i, k) for i, k in pairs if kept[i].label != kept[k].label]),
        ("split", [(i, k) for i, k in pairs if kept[i].split != kept[k].split]),
    ):
        if torn:
            raise InputError(
                f"{len(torn)} pictures are in more than one {what}, as they look",
                got=shorten([f"{kept[i].source} = {kept[k].source}" for i, k in torn], 5),
                expected=f"each picture in one {what}",
            )
    if pairs:
        groups = DisjointSet(map(_unit, kept))
        for i, k in pairs:
            groups.merge(_unit(kept[i]), _unit(kept[k]))
        kept = [replace(bscan, patient=groups[_unit(bscan)]) for bscan in kept]
        notes.append(
            f"{len(pairs)} pictures are copies of others, as they look: kept in one split."
        )
    return kept, notes


def _unit(bscan: BScan) -> str:
    return bscan.patient or f"picture {bscan.source}"
