"""Train and score the heads of several models, compare them by patient, draw examples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from linprobe.datasets import list_data_sets
from linprobe.features import Extractor, View, reading_processes
from linprobe.report import tables as lay
from linprobe.segmentation.config import SegmentConfig
from linprobe.segmentation.figure import Example, draw_examples
from linprobe.segmentation.heads import Tokens, predict, shrunk, train_head
from linprobe.segmentation.masks import TO_TRAIN, Labels, Masked, MaskedSet, read_masked_set
from linprobe.store import FeatureStore
from linprobe.units import unit_names
from retfiner.common.bootstrap import FloatArray, Units, bootstrap_interval, resample
from retfiner.common.devices import resolve_device
from retfiner.common.errors import InputError
from retfiner.common.files import file_sha256, write_text
from retfiner.common.predictions import numbered
from retfiner.vision import PATCH_TOKENS, Backbone, evaluation_transform, load_backbone

Mask = NDArray[np.bool_]
METRICS = {"dice": "Dice", "hd95": "HD95"}
MEAN = "mean"
RESAMPLES = 2000
TABLE, SUMMARY = "segmentation.csv", "segmentation.md"


@dataclass(frozen=True)
class Measured:
    """A model on a data set: its scores, and the masks of its first seed."""

    rows: pd.DataFrame
    found: list[Labels]


def segment(config: SegmentConfig) -> str:
    """Run everything, write ``segmentation.csv``, ``segmentation.md`` and examples.

    Returns:
        The summary, as it is written.

    Raises:
        InputError: If data or weights cannot be used, or training diverges.
    """
    data_sets = [
        read_masked_set(path)
        for path in list_data_sets(config.data_root, config.data_set, having=TO_TRAIN)
    ]
    frames: list[pd.DataFrame] = []
    found: dict[str, dict[str, list[Labels]]] = {data.name: {} for data in data_sets}
    for name, path in config.models.items():
        backbone = load_backbone(path, image_size=config.image_size)
        about = {"model": name, "weights_sha256": file_sha256(path)}
        for data in data_sets:
            measured = measure(config, backbone, data, name)
            frames.append(measured.rows.assign(**about, data_set=data.name, head=config.head))
            found[data.name][name] = measured.found
    rows = pd.concat(frames, ignore_index=True)
    config.output.mkdir(parents=True, exist_ok=True)
    rows.to_csv(config.output / TABLE, index=False)
    text = "\n\n".join(summarise(rows, data, list(config.models)) for data in data_sets)
    write_text(config.output / SUMMARY, text + "\n")
    for data in data_sets:
        chosen = _examples(data.splits["test"], found[data.name], config.examples)
        draw_examples(chosen, data.classes, config.output / f"{data.name}.png")
    return text


def measure(config: SegmentConfig, backbone: Backbone, data: MaskedSet, name: str) -> Measured:
    """Train a head for each seed and score it on the test images: a row an image and class."""
    device = resolve_device(config.device)
    extractor = Extractor(
        backbone,
        PATCH_TOKENS,
        FeatureStore(config.feature_store),
        device=device,
        num_workers=reading_processes(config.num_workers, device),
        batch_size=config.inference_batch_size,
    )
    view, side = View(evaluation_transform(backbone)), round(backbone.patches**0.5)
    tokens, small = {}, {}
    for split, part in data.splits.items():
        title = f"{name} on {data.name}: {split}"
        tokens[split] = Tokens(extractor.stored(part.split, [view], title)[0], side)
        small[split] = shrunk(part.masks, backbone.image_size)
    test = data.splits["test"]
    sizes = [mask.shape for mask in test.masks]
    rows: list[pd.DataFrame] = []
    first: list[Labels] = []
    for seed in config.seed:
        head = train_head(config, tokens, small, len(data.classes), seed, device)
        found = predict(head, tokens["test"], sizes, device)
        first = first or found
        rows.append(score(found, test, data.classes).assign(seed=seed))
    return Measured(pd.concat(rows, ignore_index=True), first)


def dice(found: Mask, truth: Mask) -> float:
    """Twice what is common over the sum of both (Dice, 1945); NaN where both are empty."""
    total = int(found.sum()) + int(truth.sum())
    return 2 * int((found & truth).sum()) / total if total else float("nan")


def hausdorff_95(found: Mask, truth: Mask) -> float:
    """95th percentile of the distances from each one's border to the other's, in pixels.

    Distances of both directions are pooled, as MedPy's ``hd95`` does. NaN where one is empty: no
    distance is the right one then, and Dice tells.
    """
    if not found.any() or not truth.any():
        return float("nan")
    borders = [mask & ~binary_erosion(mask) for mask in (found, truth)]
    away = [distance_transform_edt(~border) for border in borders]
    distances = np.concatenate([away[1][borders[0]], away[0][borders[1]]])
    return float(np.percentile(distances, 95))


def score(found: list[Labels], test: Masked, classes: list[str]) -> pd.DataFrame:
    """Score masks: a row for each image and class but the background."""
    rows = []
    patients = numbered([owner.patient for owner in test.split.owners])
    units = zip(found, test.masks, test.split.names, patients, strict=True)
    for mask, truth, image, patient in units:
        for number, name in enumerate(classes[1:], 1):
            pair = mask == number, truth == number
            rows.append({
                "image": image, "patient": patient, "class": name, "dice": dice(*pair),
                "hd95": hausdorff_95(*pair), "pixels": int(pair[1].sum()),
            })  # fmt: skip
    return pd.DataFrame(rows)


def summarise(rows: pd.DataFrame, data: MaskedSet, models: list[str]) -> str:
    """Write a data set's table: each class and their mean, and what changes against the base."""
    own = rows[rows["data_set"] == data.name]
    test = data.splits["test"].split
    images, unknown = test.names, sum(not owner.patient for owner in test.owners)
    units = np.unique(unit_names("patient", images, test.owners), return_inverse=True)[1]
    drawn = f"{len(set(units))} patients"
    if unknown:
        known = unknown < len(images)
        drawn = f"{len(set(units))} {'patients or ' * known}images: {unknown} have no known patient"
    whole, lines = np.ones((1, len(images))), []
    for metric, title in METRICS.items():
        tables = {m: _images_by_class(own, m, metric, images, data.classes[1:]) for m in models}
        for number, label in enumerate([*data.classes[1:], MEAN]):
            means = {m: _mean(t, None if label == MEAN else number) for m, t in tables.items()}
            values = (lay.with_interval(mean(whole)[0, 0]) for mean in means.values())
            of = slice(None) if label == MEAN else [number]
            scored = {m: np.isfinite(table[:, of]) for m, table in tables.items()}
            base = models[0]
            changes = (_change(means[base], means[m], scored[base] | scored[m], units)
                       for m in models[1:])  # fmt: skip
            lines.append(lay.Line((title, label, *values, *changes)))
    caption = (
        f"{len(images)} test images; intervals of 95 % draw {drawn}. Dice in percent, higher is "
        "better; HD95 in pixels, lower is better; a class is scored where it is in the truth or "
        "found, its distance where it is in both. Means over seeds."
    )
    columns = ("score", "class", *models, *(f"change: {m}" for m in models[1:]))
    table = lay.Table(data.name, caption, columns, lines, data.notes)
    return f"## {data.name}\n\n{lay.render('tables.md', tables=[table]).strip()}"


def _images_by_class(
    own: pd.DataFrame, model: str, metric: str, images: list[str], classes: list[str]
) -> FloatArray:
    """Give a model's scores (N, C), seeds averaged, NaN where there is none; Dice in percent."""
    part = own[own["model"] == model]
    table = part.groupby(["image", "class"])[metric].mean().unstack("class")
    values = table.reindex(index=images, columns=classes).to_numpy(float)
    return values * (100 if metric == "dice" else 1)


def _mean(values: FloatArray, column: int | None) -> partial[FloatArray]:
    return partial(_weighted, values if column is None else values[:, [column]])


def _weighted(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean over classes of the means over images, by weights (R, N) of the images: (1, R)."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = weights @ np.where(there, values, 0) / (weights @ there)
    known = np.isfinite(means)
    with np.errstate(invalid="ignore"):
        mean = np.where(known, means, 0).sum(1) / known.sum(1)
    return np.asarray(mean)[None]


def _change(
    of_base: partial[FloatArray], of_other: partial[FloatArray],
    scored: NDArray[np.bool_], units: NDArray[np.intp],
) -> str:  # fmt: skip
    """Say by how much a model differs, with its interval.

    ``scored`` (N, C) are the images with a score of each class, ``units`` (N,) whose they are.
    """
    counts = [len(set(units[column])) for column in scored.T if column.any()]
    if not counts:
        return "–"

    def difference(weights: FloatArray) -> FloatArray:
        return of_other(weights) - of_base(weights)

    point = float(difference(np.ones((1, len(units))))[0, 0])
    names = list(map(str, units))
    draws = resample(difference, len(units), names, RESAMPLES, np.random.default_rng(0))[0]
    total = len(set(units[scored.any(axis=1)]))
    interval = bootstrap_interval(draws[np.isfinite(draws)], [Units(total, counts)])
    return lay.with_interval(point, interval, sign=True)


def _examples(test: Masked, found: dict[str, list[Labels]], count: int) -> list[Example]:
    """Take examples at even distances among the test images with more than background."""
    rows: NDArray[np.int64] = np.flatnonzero([bool(mask.any()) for mask in test.masks])
    if not len(rows):
        raise InputError("No test mask has anything but background", got=f"{len(test.masks)} masks")
    chosen = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)]
    return [
        Example(
            test.split.paths[row],
            test.masks[row],
            {name: masks[row] for name, masks in found.items()},
        )
        for row in dict.fromkeys(chosen.tolist())
    ]
