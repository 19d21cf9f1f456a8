"""Do word maps point at what the words name? A model refined for the question, and its score.

The pairs are as clear as pairs can be: up to two large findings a scan, anywhere along it, and one
wording for each set of findings, so that a wrong report is really wrong. A small model can learn
image-text matching from them in minutes, and where it looks is known to the pixel.

    python benchmarks/pointing.py --begin quickstart/models/* --output pointing

A model of your own is scored on ordinary phantoms by ``python -m retfiner.explanation.pointing``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from retfiner.common.cli import flag, parse
from retfiner.common.errors import InputError, run_entry_point
from retfiner.common.numbers import PositiveInt
from retfiner.config import RefineConfig
from retfiner.data.manifest import read_manifest, split_by_patient
from retfiner.data.phantoms.cohort import stream
from retfiner.data.phantoms.masks import masks_of
from retfiner.data.phantoms.optics import Drawing, draw
from retfiner.data.phantoms.scene import Anatomy, Finding, Kind, Scan
from retfiner.explanation.grounding import GroundedPhrase, phrase_maps
from retfiner.explanation.pointing import as_table, compare_words, measure
from retfiner.export.loading import read_model
from retfiner.refine import refine
from retfiner.vision import save_backbone

NAMES: dict[Kind, str] = {
    "drusen": "drusen",
    "geographic_atrophy": "geographic atrophy",
    "intraretinal_fluid": "intraretinal fluid",
    "subretinal_fluid": "subretinal fluid",
    "pigment_epithelial_detachment": "PED",
    "macular_hole": "macular hole",
}
SIZE = (128, 192)
FARTHEST_UM = 1700.0


@dataclass(frozen=True)
class Settings:
    """The command line."""

    output: Path = flag("folder for the pairs and the run")
    begin: Path | None = flag("run whose refined model to begin from", None)
    model: Path | None = flag("score this run, refined here before, instead of a new one", None)
    text_encoder: Path | None = flag("folder with the tokenizer, for old checkpoints", None)
    pairs: PositiveInt = flag("scans to draw, one a patient", 4800)
    max_epochs: PositiveInt = flag("epochs of refinement", 8)
    seed: int = flag("what the scans depend on", 7)


def scan_of(index: int, seed: int) -> tuple[Scan, Drawing]:
    """Draw scan ``index``: no finding, one or two, large, anywhere."""
    generator = stream(seed, 20, index)
    count = int(generator.choice([0, 1, 2], p=[0.12, 0.58, 0.30]))
    kinds = [list(NAMES)[i] for i in sorted(generator.permutation(len(NAMES))[:count])]
    findings = []
    for kind in kinds:
        severity = float(generator.uniform(0.5, 1))
        position = float(generator.uniform(-FARTHEST_UM, FARTHEST_UM))
        subtype = "serous" if kind == "pigment_epithelial_detachment" else ""
        own = int(generator.integers(2**31))
        findings.append(Finding(kind, severity, position, own, subtype))
    scan = Scan(f"P{index:05d}", "OD", 1, Anatomy.sample(generator), tuple(findings))
    return scan, draw(scan, generator, SIZE)


def report_of(scan: Scan) -> str:
    named = " and ".join(NAMES[finding.kind] for finding in scan.findings) or "no abnormality"
    return named[0].upper() + named[1:] + "."


def write_pairs(folder: Path, pairs: int, seed: int) -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(pairs):
        scan, drawing = scan_of(index, seed)
        name = f"images/{index:05d}.png"
        Image.fromarray(drawing.image).save(folder / name, compress_level=1)
        rows.append((name, report_of(scan), scan.patient_id))
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "report", "patient_id"), *rows])
    return folder / "pairs.csv"


def refined(settings: Settings, pairs: Path) -> Path:
    if settings.model is not None:
        return settings.model
    if settings.begin is None:
        raise InputError("Nothing to begin from", remedy="--begin models/<name>, or --model")
    loaded = read_model(settings.begin, text_encoder=settings.text_encoder)
    weights, bert = settings.output / "begin.pth", settings.output / "bert"
    save_backbone(weights, loaded.model.backbone)
    loaded.model.multimodal_encoder.save_pretrained(bert)
    loaded.tokenizer.save_pretrained(bert)
    return refine(
        RefineConfig(
            model_weights=weights,
            text_encoder=bert,
            train_csv=pairs,
            output_dir=settings.output / "models",
            losses=["itc", "itm"],
            batch_size=64,
            lr=1e-3,
            lr_schedule="cosine",
            warmup_steps=30,
            exponential_temp=True,
            max_epochs=settings.max_epochs,
            patience=settings.max_epochs,
            image_cache=True,
        )
    ).folder


def held_out_phrases(
    pairs: Path, seed: int, fraction: float, split_seed: int
) -> list[GroundedPhrase]:
    _, held_out = split_by_patient(read_manifest(pairs), fraction, split_seed)
    phrases = []
    for image, report in zip(held_out.images, held_out.reports, strict=True):
        scan, drawing = scan_of(int(image.path.stem), seed)
        with Image.open(image.path) as stored:
            assert np.array_equal(np.asarray(stored), drawing.image), f"{image} is another scan"
        for finding, mask in masks_of(scan, drawing).items():
            phrases.append(GroundedPhrase(image.path, report, finding, mask))
    return phrases


def main() -> None:
    settings = parse(Settings, "Refine a model on large findings and score where its words look")
    pairs = settings.output / "pairs.csv"
    if not pairs.is_file():
        pairs = write_pairs(settings.output, settings.pairs, settings.seed)
    loaded = read_model(refined(settings, pairs))
    run = loaded.description["settings"]
    phrases = held_out_phrases(pairs, settings.seed, run["val_fraction"], run["seed"])
    kept, maps = phrase_maps(loaded, phrases)
    for tolerance in (0, 1):
        print(f"\ntolerance of {tolerance} patches")
        scores = measure(kept, maps, tolerance)
        print(as_table(scores, compare_words(kept, maps, tolerance)))


if __name__ == "__main__":
    run_entry_point(main)
