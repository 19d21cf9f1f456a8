"""All that a refinement run reads, in miniature: images, reports, a base model, a text encoder."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import BertConfig

from retfiner import refine
from retfiner.config import RefineConfig
from retfiner.data.datamodule import Pairs
from retfiner.model import RetFiner
from retfiner.text.encoder import CrossAttentionBert
from retfiner.text.tokenizer import load_tokenizer, train_tokenizer
from retfiner.training.adaptation import adapt
from retfiner.training.build import build_model
from retfiner.vision import Backbone
from tests.helpers.small import small_vit

FINDINGS = (
    "drusen",
    "subretinal fluid",
    "intraretinal cysts",
    "an epiretinal membrane",
    "no fluid",
)
PLACES = ("in the fovea", "nasal of the fovea", "temporal of the fovea")
WIDTH, DEPTH, HEADS, SIZE, PATCH = 48, 2, 4, 32, 8

OWN_DATASET = """
import csv
from pathlib import Path
from retfiner.vision import read_image

class Pairs:
    def __init__(self, transform, image_root):
        self.transform, self.root = transform, Path(image_root)
        with open(self.root / "pairs.csv", newline="") as file:
            self.rows = list(csv.DictReader(file))
        self.patients = [row["patient_id"] for row in self.rows]
    def __len__(self):
        return len(self.rows)
    def __getitem__(self, index):
        row = self.rows[index]
        return [self.transform(read_image(self.root / row["image"])), row["report"]]
"""
"""A data set as a user may write one; tests add classes that differ in one thing."""


class Material(NamedTuple):
    """Files of a small refinement.

    Attributes:
        csv: Image-report pairs of a dozen patients.
        weights: A base model in RETFound's layout.
        text_encoder: A BERT with cross-attention, as a Hugging Face folder.
    """

    csv: Path
    weights: Path
    text_encoder: Path


def make_material(folder: Path, pairs: int = 24, patients: int = 12) -> Material:
    """Write everything a run needs into a folder."""
    table = write_pairs(folder, pairs, patients)
    weights = write_base_model(folder / "RETFound_small.pth")
    return Material(table, weights, write_text_encoder(folder / "bert"))


def report_of(index: int) -> str:
    return f"B-scan with {FINDINGS[index % 5]} {PLACES[index % 3]}, scan {index % 7}."


def write_image(path: Path, index: int, size: int = 40) -> None:
    """Write a real image whose pixels differ from index to index; the suffix says which kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(index).integers(0, 256, (size, size + 8), dtype=np.uint8)
    noise[index % size] = 255
    Image.fromarray(noise).save(path)


def write_pairs(
    folder: Path, pairs: int = 24, patients: int = 12, name: str = "pairs.csv", first: int = 0
) -> Path:
    """Write images, PNG and JPEG in turn, and their CSV; ``first`` offsets images and patients."""
    rows = []
    for index in range(first, first + pairs):
        image = Path("images") / f"scan_{index:03d}.{'jpg' if index % 2 else 'png'}"
        write_image(folder / image, index)
        rows.append([str(image), report_of(index), f"patient-{first + index % patients:03d}"])
    return write_csv(folder / name, rows)


def write_csv(
    path: Path,
    rows: Sequence[Sequence[str]],
    header: Sequence[str] = ("image", "report", "patient_id"),
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def read_csv(path: Path) -> list[list[str]]:
    """Return the rows below the header."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def damage_in_the_middle(path: Path) -> None:
    """Overwrite a PNG's middle; its first and last bytes stay as they are.

    A PNG has checksums; a JPEG decoder paints over such damage and says nothing.
    """
    assert path.suffix == ".png"
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = bytes(third)
    path.write_bytes(content)


def write_base_model(path: Path, seed: int = 0) -> Path:
    """Write a ViT in RETFound's layout; its small width needs the number of heads beside it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = small_vit(WIDTH, SIZE, PATCH, DEPTH, HEADS)
    about = {"backbone": "RETFound", "image_size": SIZE, "num_heads": HEADS, "provenance": {}}
    decoder = {"decoder_embed.weight": torch.zeros(8, WIDTH), "mask_token": torch.zeros(1, 1, 8)}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": encoder.state_dict() | decoder, "epoch": 799, "retfiner": about}, path)
    return path


def write_text_encoder(folder: Path, width: int = 32) -> Path:
    """Write a BERT with cross-attention and a vocabulary of its own."""
    tokenizer = train_tokenizer([report_of(index) for index in range(105)], 200)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = CrossAttentionBert(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=64,
                max_position_embeddings=40,
                is_decoder=True,
                add_cross_attention=True,
            )
        )
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def settings(material: Material, output_dir: Path, **changes: Any) -> RefineConfig:
    """Settings of a run of seconds: two epochs, batches of eight, in this process alone."""
    values: dict[str, Any] = {
        "model_weights": material.weights,
        "train_csv": material.csv,
        "text_encoder": material.text_encoder,
        "output_dir": output_dir,
        "val_fraction": 0.34,
        "batch_size": 8,
        "max_epochs": 2,
        "lr": 1e-3,
        "num_workers": 0,
        "precision": "32-true",
        "recipe": "published",
        "fixed_temp": False,
        "duplicate_reports": "shared",
        "redraw_masks": False,
        "random_token_from": 0,
        "train_interpolation": "bilinear",
        "drop_path": 0.0,
        "accelerator": "cpu",
    }
    return RefineConfig(**(values | changes))


def load_pairs(config: RefineConfig, transform: Any) -> Pairs:
    """Read, check and split the data as a run does."""
    tables = None if config.train_csv is None else refine.read_tables(config)
    return refine.load_pairs(config, tables, (transform, transform))


def model_of(config: RefineConfig, backbone: Backbone, text: CrossAttentionBert) -> RetFiner:
    """Assemble the model as a run does."""
    model = build_model(
        backbone,
        text,
        load_tokenizer(config.text_encoder).mask_token_id,
        losses=config.losses,
        temperature=config.temperature,
        exponential_temp=config.exponential_temp,
        duplicate_reports=config.duplicate_reports or "shared",
        random_token_from=config.random_token_from or 0,
        redraw_masks=config.redraw_masks or False,
        contrast=config.contrast,
    )
    adapt(
        model,
        config.losses,
        unfreeze_last_blocks=config.unfreeze_last,
        lora_rank=config.lora_rank,
        lora_scale=config.lora_scale(config.lora_rank),
        fixed_temp=config.fixed_temp or False,
        drop_path=config.drop_path or 0.0,
        gradient_checkpointing=config.gradient_checkpointing,
    )
    return model


def metrics_of(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a run's metrics.csv."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(folder: Path, name: str) -> list[float]:
    """Return what a run logged under a name, in order."""
    return [float(row[name]) for row in metrics_of(folder) if row.get(name)]
