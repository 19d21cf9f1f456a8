"""Does a group of B-scans find its report better than the central one alone?

Phantom exams (a volume an eye, findings at any height, one report) of patients in three parts: to
train on, to validate, and to ask. The same small model is refined, by contrast alone, on the
central B-scan, and on several of each volume pooled by attention and by their mean; each exam that
was not trained on then looks for its report among all of these. Differences are paired, their
intervals drawn by patient.

    OMP_NUM_THREADS=1 python benchmarks/exams.py --output exams

What ``output`` holds already is not computed again. ``docs/exams.md`` has results.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from retfiner.api import load_model
from retfiner.common.bootstrap import resample
from retfiner.common.cli import flag, parse
from retfiner.common.errors import run_entry_point
from retfiner.common.numbers import PositiveInt
from retfiner.config import RefineConfig
from retfiner.data.pair_table import read_reports
from retfiner.data.phantoms.generate import write_exams
from retfiner.refine import refine
from retfiner.text.build import build_text_encoder
from retfiner.text.config import TextEncoderConfig
from retfiner.training.pretrain import pretrain
from retfiner.training.pretrain_config import PretrainConfig

Row = dict[str, str]
WAYS: dict[str, dict[str, object]] = {
    "central": {"slices": "central", "max_slices": 1},
    "mean": {"slices": "even", "pooling": "mean"},
    "attention": {"slices": "even", "pooling": "attention"},
}


@dataclass(frozen=True)
class Settings:
    """The command line."""

    output: Path = flag("folder for phantoms, models and runs")
    patients: PositiveInt = flag("patients, about 1.7 eyes each; a quarter of them is asked", 1000)
    slices: PositiveInt = flag("B-scans of a volume", 15)
    max_slices: PositiveInt = flag("B-scans of it that are used", 8)
    epochs: PositiveInt = flag("epochs of refinement", 8)
    ways: list[Literal["central", "mean", "attention"]] = flag(
        "how exams are read; differences are from the first", ["central", "attention"]
    )
    seed: int = flag("seed of everything", 0)


def prepare(config: Settings) -> dict[str, list[Row]]:
    """Write exams, split by patient, a base model and a text encoder; return the parts."""
    out, folder = config.output, config.output / "phantoms"
    if not (folder / "exams.csv").is_file():
        write_exams(folder, config.patients, config.slices, config.seed, size=(96, 144))
    with (folder / "exams.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    number = [int(row["patient_id"][1:]) for row in rows]
    ends = {"train": 0.65, "val": 0.75, "ask": 1.0}
    parts: dict[str, list[Row]] = {name: [] for name in ends}
    for row, patient in zip(rows, number, strict=True):
        share = (patient - 1) / config.patients
        parts[next(name for name, end in ends.items() if share < end)].append(row)
    for name, part in parts.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(part)
    if not (out / "base.pth").is_file():
        pretrain(
            PretrainConfig(
                images=folder / "volumes", output=out / "base.pth", image_size=32, patch_size=8,
                width=64, depth=3, epochs=2, lr=2e-3,
            )
        )  # fmt: skip
    if not (out / "bert").is_dir():
        source = TextEncoderConfig(
            output=out / "bert", from_reports=folder / "train.csv", width=64, layers=2
        )
        build_text_encoder(source, read_reports)
    return parts


def train(config: Settings, way: str) -> Path:
    """Refine in one way; return the run's folder."""
    folder = config.output / way
    done = folder / "done"
    if not done.is_file():
        result = refine(
            RefineConfig(
                **({"max_slices": config.max_slices} | WAYS[way]),
                model_weights=config.output / "base.pth", text_encoder=config.output / "bert",
                train_csv=config.output / "phantoms/train.csv",
                val_csv=config.output / "phantoms/val.csv", group_column="exam",
                output_dir=folder, batch_size=32, lr=1e-3, vision_lr=5e-4, text_lr=5e-4,
                unfreeze_last=3, losses=["itc"], exponential_temp=True, augment=False,
                warmup_steps=20, patience=config.epochs,
                max_epochs=config.epochs, image_cache=True, num_workers=0, seed=config.seed,
                monitor=["loss"], max_text_tokens=48,
            )
        )  # fmt: skip
        done.write_text(str(result.folder))
    return Path(done.read_text())


def ranks(run: Path, folder: Path, rows: list[Row]) -> NDArray[np.float64]:
    """Return, of each exam, the share of the wrong reports that it finds less alike, and top 10."""
    model = load_model(run, "cpu")
    exams = np.stack([model.encode_exam(folder / row["image"], row["eye"]) for row in rows])
    texts = list(dict.fromkeys(row["report"] for row in rows))
    scores = exams @ model.encode_texts(texts).T
    own = np.array([texts.index(row["report"]) for row in rows])
    above = (scores >= scores[np.arange(len(rows)), own][:, None]).sum(1) - 1
    return np.stack([1 - above / (len(texts) - 1), above < 10])


def report(config: Settings, rows: list[Row], found: dict[str, NDArray[np.float64]]) -> None:
    """Print means, and paired differences from the central B-scan with intervals by patient."""
    places = json.loads((config.output / "phantoms/exams.json").read_text(encoding="utf-8"))
    middle = config.slices // 2
    off = np.array(
        [any(middle not in f["slices"] and f["slices"] for f in places[r["exam"]]) for r in rows]
    )
    subsets = {"findings off-centre": off, "others": ~off, "all": np.ones_like(off)}
    for name, chosen in subsets.items():
        patients = [row["patient_id"] for row, is_in in zip(rows, chosen, strict=True) if is_in]
        for way, values in found.items():
            mean = 100 * values[:, chosen].mean(1)
            line = f"{name:<22}{len(patients):>5} {way:<10} better than {mean[0]:.1f} %,"
            line += f" top 10 {mean[1]:.1f} %"
            difference = 100 * (values - found[config.ways[0]])[:, chosen]
            if way != config.ways[0]:
                drawn = resample(
                    lambda w, d=difference: d @ w.T / w.sum(1),
                    len(patients), patients, 5000, np.random.default_rng(0),
                )  # fmt: skip
                low, high = np.quantile(drawn, [0.025, 0.975], axis=1)
                for n in range(2):
                    line += f"; {difference[n].mean():+.1f} [{low[n]:+.1f}, {high[n]:+.1f}]"
            print(line)


def main() -> None:
    """Parse the command line and run what is not there yet."""
    config = parse(Settings, "Retrieval by a group of B-scans and by the central one.")
    torch.set_num_threads(1)
    parts = prepare(config)
    folder = config.output / "phantoms"
    found = {way: ranks(train(config, way), folder, parts["ask"]) for way in config.ways}
    report(config, parts["ask"], found)


if __name__ == "__main__":
    run_entry_point(main)
