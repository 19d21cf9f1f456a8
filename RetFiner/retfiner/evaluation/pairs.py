"""Which image-report pairs are looked at: the table, and the part of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from retfiner.common.errors import InputError
from retfiner.common.files import file_sha256
from retfiner.common.progress import track
from retfiner.data.datamodule import Pairs
from retfiner.data.fingerprint import describe_data
from retfiner.data.manifest import Manifest, read_manifest, split_by_patient
from retfiner.data.pair_table import Columns, Reading, by_its_training, is_same_file
from retfiner.data.patient_ids import shared_patients
from retfiner.evaluation.config import EvaluateConfig, Part
from retfiner.vision.images.remote import local_path, size_of, url_of


@dataclass(frozen=True)
class SelectedPairs:
    """The pairs of an evaluation, which part of the table they are, and notes for a reader."""

    manifest: Manifest
    part: Part
    notes: list[str]


def select_pairs(config: EvaluateConfig, description: Mapping[str, Any]) -> SelectedPairs:
    """Read the table, and of the model's own training table the patients it did not see.

    The model's description holds its settings, which say how its training split the table.

    Raises:
        InputError: If the table cannot be used, or has no such part.
    """
    settings = description["settings"]
    is_own = is_same_file(config.data, settings["train_csv"])
    root = config.image_root
    if root is None and is_own and settings["image_root"] is not None:
        root = Path(settings["image_root"])
    with by_its_training():
        manifest = read_manifest(
            config.data,
            root,
            Columns.as_trained(settings, config),
            on_bad_row=config.on_bad_row,
            reading=Reading.as_trained(settings, config.data),
        )
    is_own = is_own or _holds_own_pairs(manifest, description)
    part: Part = config.part or ("validation" if is_own and settings["val_csv"] is None else "all")
    notes = list(manifest.notes)
    if part == "validation":
        if settings["val_csv"] is not None:
            raise InputError(
                "the model's training split off no validation part",
                got="--part validation",
                remedy=f"--data {settings['val_csv']}, which its training validated on",
            )
        if settings["dataset"] is not None:
            raise InputError("the model was not trained on a CSV", got="--part validation")
        _, manifest = split_by_patient(manifest, settings["val_fraction"], settings["seed"])
        if not is_own:
            notes.append(
                f"{config.data} holds other pairs than the model's training CSV: the part is not "
                "that of its training."
            )
    elif is_own:
        notes.append("The model was trained on these pairs: the numbers say nothing of others.")
    else:
        notes += _overlap(manifest, settings)
    if len(manifest) < 2:
        raise InputError("there is nothing to compare", got="one pair", expected="at least two")
    return SelectedPairs(manifest, part, notes)


def _holds_own_pairs(manifest: Manifest, description: Mapping[str, Any]) -> bool:
    """Say whether a table holds the very pairs of a training, wherever it and they lie now."""
    settings = description["settings"]
    if settings["train_csv"] is None or settings["val_csv"] is not None or len(manifest) < 2:
        return False
    try:
        tables = split_by_patient(manifest, settings["val_fraction"], settings["seed"])
    except InputError:
        return False  # too few patients for that split: another table
    found = describe_data(Pairs(*tables, tables))["data_sha256"]  # type: ignore[arg-type]
    return found == description["provenance"]["data_sha256"]


def _overlap(manifest: Manifest, settings: Mapping[str, Any]) -> list[str]:
    """Say how many pairs have an image or a patient that the model was trained on.

    That is known as long as its training table is there. Images are compared by their bytes,
    wherever they lie and whatever they are called; of exams, all of them.
    """
    table = local_path(Path(settings["train_csv"] or ""))
    if not table.is_file() and url_of(table) is None:
        return []
    root = settings["image_root"] and Path(settings["image_root"])
    try:
        columns = Columns.as_trained(settings)
        reading = Reading.as_trained(settings, Path(settings["train_csv"]))
        seen = read_manifest(table, root, columns, on_bad_row="skip", reading=reading)
        if settings["val_csv"] is None:
            seen, _ = split_by_patient(seen, settings["val_fraction"], settings["seed"])
    except InputError:
        return []  # the table is no longer what it was
    trained, asked = (list(chain(*pairs.images_of_pairs)) for pairs in (seen, manifest))
    size = {path: size_of(path) for path in {image.path for image in (*trained, *asked)}}
    both = {size[image.path] for image in trained} & {size[image.path] for image in asked}
    paths = [path for path in size if size[path] in both]
    shown = track(paths, "comparing with the images trained on", len(paths), "file")
    hashes = {path: url_of(path) or file_sha256(path) for path in shown}
    keys = {(hashes.get(i.path), i.index, i.member) for i in trained if i.path in hashes}
    shared = sum((hashes.get(i.path), i.index, i.member) in keys for i in asked)
    patients = shared_patients(manifest.patients or (), seen.patients or (), seen.patient_ids)
    told = [f"{shared} of these images, by their content"] * bool(shared)
    told += [f"{len(patients)} of these patients, by their names"] * bool(patients)
    return [f"The model was trained on {' and '.join(told)}."] if told else []


def describe_pairs(selected: SelectedPairs, used: Manifest) -> dict[str, Any]:
    """Count the pairs whose images could be read, for the numbers of a task."""
    return {
        "part": selected.part,
        "pairs": len(used),
        "patients": None if used.patients is None else len(set(used.patients)),
        "left_out": len(used.skipped) + len(selected.manifest) - len(used),
    }
