"""The unit of analysis: images of a volume, an eye or a patient taken together.

Pure functions of names and tables, for probes (which images form a bag) and for the report (whose
probabilities are averaged).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from retfiner.common.errors import InputError, shorten
from retfiner.common.patients import Owner
from retfiner.common.predictions import IDENTITY, PROBABILITY, task_of

_COARSER = {"image": (), "volume": (), "eye": ("volume",), "patient": ("volume", "eye")}
"""Columns that a unit's images need not share."""
MOST_MIXED = 0.5
"""Of units with images of several classes; with more, the labels are those of images."""


def unit_names(unit: str, images: Iterable[str], owners: Iterable[Owner]) -> list[str]:
    """Name the unit of each image; an image whose unit is not known is one by itself.

    Eyes, and volumes where their patients are known, are told apart by patient as well.
    """
    known = {
        "image": lambda owner: "",
        "volume": lambda owner: owner.volume and f"volume {owner.patient}/{owner.volume}",
        "eye": lambda owner: owner.patient and owner.eye and f"eye {owner.patient}/{owner.eye}",
        "patient": lambda owner: owner.patient and f"patient {owner.patient}",
    }[unit]
    return [known(owner) or f"image {image}" for image, owner in zip(images, owners, strict=True)]


def by_unit(table: pd.DataFrame, unit: str) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Average the probabilities of each unit's images, for each run in a table of predictions.

    Units with images of several classes have no class of their own and are left out, and so are
    tasks of labels, grades or values that are those of images. Gives the table, a row a unit whose
    name stands for ``image``; and notes by data set.

    Raises:
        InputError: If no image's unit is known, or most units have images of several classes.
    """
    if unit == "image":
        return table, {}
    owners = [Owner(*row) for row in table[["patient", "eye", "volume"]].to_numpy(str)]
    named = table.assign(unit=unit_names(unit, table["image"], owners))
    kept, notes, refused = [], {}, []
    for data_set, rows in named.groupby("data_set", sort=False):
        classes = rows.groupby("unit")["label"].nunique()
        mixed = sorted(classes.index[classes > 1])
        try:
            notes[str(data_set)] = _notes(str(data_set), unit, rows, mixed)
        except InputError as error:  # a column of a data set that can be scored all the same
            if task_of(rows) == "classes":
                raise
            refused.append(error)
            notes[str(data_set)] = [f"Left out: {error.problem}."]
            continue
        kept.append(rows[~rows["unit"].isin(mixed)])
    if not kept:
        raise refused[0]
    rows = pd.concat(kept)
    keys = [name for name in (*IDENTITY, "name") if name in rows]
    run = rows.groupby(keys, sort=False, dropna=False).ngroup().rename("run")
    grouped = rows.groupby([run, rows["unit"]], sort=False)
    scores = [name for name in rows if name.startswith(PROBABILITY)]
    means = grouped.first().assign(**grouped[scores].mean())
    means = means.assign(image=means.index.get_level_values("unit"),
                         **dict.fromkeys(_COARSER[unit], ""))  # fmt: skip
    return means.reset_index(drop=True)[list(table.columns)], notes


def _notes(data_set: str, unit: str, rows: pd.DataFrame, mixed: list[str]) -> list[str]:
    images = rows.drop_duplicates("image")
    alone = int(images["unit"].str.startswith("image ").sum())
    units = images["unit"].nunique()
    if alone == len(images):
        column = "patient and eye" if unit == "eye" else unit
        raise InputError(
            f"Of no image of {data_set} the {unit} is known",
            expected=f"a split.csv beside the images with {column}, or names that tell",
            remedy="score by another --unit",
        )
    if len(mixed) > MOST_MIXED * units:
        raise InputError(
            f"{data_set} is labelled by image: most of its {unit}s have images of several classes",
            got=f"{len(mixed)} of {units}, such as {shorten(mixed, 3)}",
            expected=f"one class for all images of a {unit}",
            remedy="score by another --unit",
        )
    notes = []
    if mixed:
        notes.append(f"{len(mixed)} of {units} {unit}s have images of several classes and are left "
                     "out.")  # fmt: skip
    if alone:
        notes.append(f"The {unit} of {alone} images is not known: each is its own.")
    return notes


def bags_of(
    unit: str, images: Sequence[str], owners: Sequence[Owner], labels: Sequence[int]
) -> tuple[list[list[int]], list[int | None]]:
    """Group images by unit: their indices, and the class that they share, None where they do not.

    Units stand in the order of their first images.
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(unit_names(unit, images, owners)):
        rows.setdefault(name, []).append(row)
    classes = [{int(labels[row]) for row in bag} for bag in rows.values()]
    return list(rows.values()), [own.pop() if len(own) == 1 else None for own in classes]
