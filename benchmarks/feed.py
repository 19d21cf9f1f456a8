"""Pairs a second that one process hands to training: decode, resize, cache, tokenise.

    python benchmarks/feed.py
    python benchmarks/feed.py --step_seconds 0.25 --batch_size 64

B-scans of 496 x 512 pixels and reports of a dozen words are written as PNG, JPEG, NPY and DICOM
and as volumes of the devices' makers, and read in a mixed order as training reads them. The last
row is tokenising alone. A device is kept busy by its batch divided by the seconds of its step
(``train_step.py``) pairs a second; divided by these figures, that is the number of processes, which
stands beside them where a step's time is given.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from read_images import WIDTH, draw_volume, volume_writers, write_dicom

from retfiner.common.cli import flag, parse
from retfiner.common.errors import run_entry_point
from retfiner.data.batch import Collate
from retfiner.data.manifest import read_manifest
from retfiner.data.pairs import ImageCaptionDataset, NumberedPairs
from retfiner.text.tokenizer import tokenize, train_tokenizer
from retfiner.vision import EvaluationTransform

REPORT = "Drusen and a shallow pigment epithelial detachment, scan {}, no intraretinal fluid."
SINGLES = ("png", "jpg", "npy", "dcm")
VOLUMES = (
    "DICOM", "Heidelberg .vol", "Heidelberg .e2e", "Zeiss .img", "Topcon .fda", "Topcon .fds",
)  # fmt: skip


@dataclass(frozen=True)
class FeedConfig:
    """Settings of the benchmark."""

    pairs: int = flag("image-report pairs", 128)
    image_size: int = flag("side of the model's input in pixels", 224)
    rounds: int = flag("times that all are read; the median counts", 5)
    step_seconds: float | None = flag("seconds of a step on the device to be fed", None)
    batch_size: int = flag("pairs of that step", 16)


def write_pairs(folder: Path, suffix: str, scans: np.ndarray) -> Path:
    rows = []
    for index, scan in enumerate(scans):
        path = folder / f"{index}.{suffix}"
        if suffix == "dcm":
            write_dicom(path, scan, "")
        else:
            np.save(path, scan) if suffix == "npy" else Image.fromarray(scan).save(path)
        rows.append((path.name, 0))
    return write_table(folder / f"{suffix}.csv", rows)


def write_volume_pairs(folder: Path, kind: str, scans: np.ndarray) -> Path:
    name, write = volume_writers()[kind]
    path = folder / name.format(width=WIDTH, count=len(scans))
    write(path, scans)
    return write_table(folder / f"{kind}.csv", [(path.name, i) for i in range(len(scans))])


def write_table(path: Path, images: list[tuple[str, int]]) -> Path:
    rows = ["image,slice,report,patient_id"]
    rows += [f'{name},{at},"{REPORT.format(i)}",p{i}' for i, (name, at) in enumerate(images)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def pairs_a_second(work: Callable[[], object], pairs: int, rounds: int) -> float:
    """Give the median rate; a round before warms disk and cache."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return pairs / statistics.median(seconds[1:])


def main() -> None:
    """Measure and print."""
    config = parse(FeedConfig, "Pairs a second from disk to batch.")
    torch.set_num_threads(1)
    size = config.image_size
    transform = EvaluationTransform(size, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    reports = [REPORT.format(index) for index in range(config.pairs)]
    tokenizer = train_tokenizer(reports, 300)
    collate = Collate(tokenizer, 30, (3, size, size))
    rates = {}
    with tempfile.TemporaryDirectory() as name:
        scans = draw_volume(config.pairs)
        tables = {kind: write_pairs(Path(name), kind, scans) for kind in SINGLES}
        tables |= {kind: write_volume_pairs(Path(name), kind, scans) for kind in VOLUMES}
        order = np.random.default_rng(0).permutation(config.pairs).tolist()
        for kind, table in tables.items():
            manifest = read_manifest(table)
            for cached in (False, True):
                numbered = NumberedPairs(
                    ImageCaptionDataset(manifest, transform, cached), None, manifest.images
                )
                rates[kind + (", --image_cache" if cached else "")] = pairs_a_second(
                    lambda d=numbered: collate([d[i] for i in order]),
                    config.pairs,
                    config.rounds,
                )
    rates["tokenising alone"] = pairs_a_second(
        lambda: tokenize(tokenizer, reports, 30), config.pairs, config.rounds
    )
    print(f"{config.pairs} pairs, {size} x {size} pixels, one process, one thread")
    needed = None if config.step_seconds is None else config.batch_size / config.step_seconds
    if needed is not None:
        print(f"the device needs {needed:,.0f} pairs a second")
    for what, rate in rates.items():
        processes = "" if needed is None else f", {math.ceil(needed / rate)} processes"
        print(f"{what:<32}{rate:>10,.0f} pairs a second{processes}")


if __name__ == "__main__":
    run_entry_point(main)
