"""A refinement run from settings to files: parse, build, fit are all there is."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from retfiner.batch import identify_reports
from retfiner.build import build_model, describe
from retfiner.common.cli import as_plain
from retfiner.common.devices import resolve_precision
from retfiner.common.errors import InputError
from retfiner.config import RefineConfig
from retfiner.data.datamodule import Pairs, PairsDataModule, load_pairs
from retfiner.data.pairs import Collate
from retfiner.data_wait import DataWait
from retfiner.logbook import Logbook, MetricsCsv, RunProgress, format_summary
from retfiner.metrics import chance_recall
from retfiner.module import RefinementModule
from retfiner.precision import precision_plugin
from retfiner.runs import find_resume_checkpoint, make_run_folder, run_name, write_config
from retfiner.text.encoder import load_text_encoder
from retfiner.text.tokenizer import load_tokenizer, report_lengths
from retfiner.vision import Backbone, load_backbone, read_checkpoint
from retfiner.vision.preprocessing import evaluation_transform

say = print

FREE_ON_RESUME = frozenset(
    {
        "accelerator", "checkpoint_every_n_steps", "devices", "gradient_checkpointing",
        "max_epochs", "model_weights", "note", "num_workers", "output_dir", "patience", "resume",
        "text_encoder", "worker_start",
    }
)  # fmt: skip
"""Settings that may differ when a run goes on; all others would change what the run is."""


@dataclass(frozen=True)
class RunResult:
    """What a run achieved.

    Attributes:
        folder: Where its files lie.
        before: Validation metrics before the first step.
        best: Validation metrics of the best checkpoint.
    """

    folder: Path
    before: dict[str, float]
    best: dict[str, float]


def refine(config: RefineConfig) -> RunResult:
    """Refine a vision model on image-report pairs and write everything into the run's folder.

    Args:
        config: The settings.

    Raises:
        InputError: If anything the user gave cannot be used.
    """
    _quieten()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    resume = find_resume_checkpoint(config.resume) if config.resume is not None else None

    backbone = load_backbone(config.model_weights, config.backbone, config.image_size)
    text, tokenizer = load_text_encoder(config.text_encoder), load_tokenizer(config.text_encoder)
    _check_text_length(config, text.config.max_position_embeddings)
    pairs = load_pairs(config, evaluation_transform(backbone))
    model = build_model(config, backbone, text, tokenizer)
    description = describe(config, backbone, text, tokenizer)
    description |= {"train_pairs": pairs.train_size, "validation_pairs": pairs.validation_size}
    if resume is not None:
        description["provenance"]["run_id"] = _check_resume(resume, description)
    module = RefinementModule(
        model,
        config.weights,
        lr=config.lr,
        weight_decay=config.weight_decay,
        lr_schedule=config.lr_schedule,
        warmup_steps=config.warmup_steps,
        layer_decay=config.layer_decay,
        seed=config.seed,
        description=description,
    )
    size = (backbone.spec.in_chans, backbone.image_size, backbone.image_size)
    collate = Collate(tokenizer, config.max_text_tokens, size, config.on_bad_row)
    datamodule = PairsDataModule(pairs, collate, config)

    folder = (
        resume.parent
        if resume is not None
        else make_run_folder(config.output_dir, run_name(config, backbone.spec.name))
    )
    steps = -(-pairs.train_size // config.batch_size)
    try:
        trainer = build_trainer(config, folder, steps)
    except InputError:
        if resume is None:
            folder.rmdir()  # nothing lies in it yet
        raise
    facts = _facts(description, trainer, pairs)
    write_config(folder, config, facts)
    _announce(config, backbone, pairs, tokenizer, trainer, folder)
    if config.compile:
        model.compile_encoders()
    return _fit(trainer, module, datamodule, folder, resume)


def build_trainer(config: RefineConfig, folder: Path, steps_per_epoch: int) -> pl.Trainer:
    """Set up Lightning: device, arithmetic, checkpoints, early stopping, logs.

    Args:
        config: The settings.
        folder: The run's folder.
        steps_per_epoch: Batches of an epoch.

    Raises:
        InputError: If there is no such device.
    """
    devices = _count_devices(config.devices)
    best = ModelCheckpoint(
        dirpath=folder,
        filename="best-model",
        monitor="val/loss",
        mode="min",
        save_weights_only=True,  # nothing resumes from it, and optimiser states are two thirds
        enable_version_counter=False,
    )
    last = ModelCheckpoint(
        dirpath=folder,
        filename="last",
        every_n_train_steps=config.checkpoint_every_n_steps,
        enable_version_counter=False,
    )
    each_epoch = ModelCheckpoint(
        dirpath=folder,
        filename="last",
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    try:
        accelerator = _resolve_accelerator(config.accelerator)
        return pl.Trainer(
            accelerator=accelerator,
            devices=devices,
            plugins=precision_plugin(resolve_precision(config.precision, accelerator), accelerator),
            max_epochs=config.max_epochs,
            accumulate_grad_batches=config.accumulate_grad_batches,
            gradient_clip_val=config.gradient_clip_val,
            callbacks=[
                EarlyStopping("val/loss", patience=config.patience, mode="min"),
                LearningRateMonitor("step"),
                best,
                last,
                each_epoch,
                DataWait(),
                Logbook(folder),
                RunProgress(refresh_rate=1),
            ],
            logger=[MetricsCsv(folder), TensorBoardLogger(folder, name="", version="tensorboard")],
            num_sanity_val_steps=0,
            log_every_n_steps=min(10, steps_per_epoch),
            enable_model_summary=False,
        )
    except (pl.utilities.exceptions.MisconfigurationException, ValueError, RuntimeError) as error:
        raise InputError(
            "the device cannot be used as asked",
            got=f"--accelerator {config.accelerator} --devices {config.devices}"
            f" --precision {config.precision}: {error}",
            remedy="leave --accelerator, --devices and --precision at auto",
        ) from error


def _fit(
    trainer: pl.Trainer,
    module: RefinementModule,
    datamodule: PairsDataModule,
    folder: Path,
    resume: Path | None,
) -> RunResult:
    before: dict[str, float] = {}
    if resume is None:
        before = _plain(trainer.validate(module, datamodule, verbose=False)[0])
    trainer.fit(module, datamodule, ckpt_path=resume, weights_only=True)
    best = _read_best(folder)
    say(f"\n{format_summary(before, best, _chance(datamodule.pairs))}")
    say(
        f"\nRefined model:  {folder / 'best-model.ckpt'}"
        f"\nCurves:         {folder / 'curves.png'}"
        "\nNext:           python get_vision_backbone_for_linprobing.py --path_to_model "
        f"{folder / 'best-model.ckpt'}"
    )
    return RunResult(folder, before, best)


def _read_best(folder: Path) -> dict[str, float]:
    """Return the validation metrics of the epoch with the lowest loss."""
    import pandas as pd

    table = pd.read_csv(folder / "metrics.csv").dropna(subset=["val/loss"])
    trained = table.iloc[1:]  # the first row is the validation before training
    row = trained.loc[trained["val/loss"].idxmin()]
    return {name: float(row[name]) for name in row.index if name.startswith("val/")}


def _chance(pairs: Pairs) -> dict[str, float]:
    """Return the recall of a random order on validation, where the reports are at hand."""
    if pairs.manifests is None:
        return {}
    return chance_recall(identify_reports(pairs.manifests[1].reports))


def _plain(metrics: Any) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _quieten() -> None:
    """Keep libraries from talking about themselves; their warnings still come through."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    torch.set_float32_matmul_precision("high")
    # Lightning remarks on a folder that we made and on its own use of torch; neither is the user's.
    warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)")


def _resolve_accelerator(requested: str) -> str:
    if requested == "gpu":
        return "cuda" if torch.cuda.is_available() else "gpu"
    if requested != "auto":
        return requested
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _count_devices(requested: str) -> int:
    if requested in {"auto", "1"}:
        return 1
    raise InputError(
        "--devices cannot be used as asked",
        got=requested,
        expected="auto or 1: a run trains on one device",
    )


def _check_text_length(config: RefineConfig, longest: int) -> None:
    if config.max_text_tokens > longest:
        raise InputError(
            "--max_text_tokens is longer than the text encoder can read",
            got=config.max_text_tokens,
            expected=f"at most {longest}",
        )


def _check_resume(path: Path, description: dict[str, Any]) -> str:
    """Make sure that the run to go on with is the same run, and return its id."""
    stored = read_checkpoint(path).metadata
    if "settings" not in stored:
        raise InputError(
            f"{path} cannot be resumed",
            got="a checkpoint without a description of its run",
            expected="last.ckpt as train.py writes it",
        )
    old, new = stored["settings"], as_plain(description["settings"])
    differing = [
        f"--{key} was {old.get(key)!r}, now {new[key]!r}"
        for key in new
        if key not in FREE_ON_RESUME and old.get(key) != new[key]
    ]
    key = "base_weights_sha256"
    if stored["provenance"][key] != description["provenance"][key]:
        differing.append("--model_weights holds other bytes")
    if differing:
        raise InputError(
            f"{path} belongs to a run with other settings",
            got="; ".join(differing),
            expected="the same settings as when the run began",
            remedy=f"--config {path.parent / 'config.yaml'} --resume {path}",
        )
    return stored["provenance"]["run_id"]


def _facts(description: dict[str, Any], trainer: pl.Trainer, pairs: Pairs) -> dict[str, Any]:
    return {
        "backbone": description["backbone"],
        "image_size": description["image_size"],
        "provenance": description["provenance"],
        "device": str(trainer.strategy.root_device),
        "precision": str(trainer.precision),
        "train_pairs": pairs.train_size,
        "validation_pairs": pairs.validation_size,
        "versions": description["versions"],
    }


def _announce(
    config: RefineConfig,
    backbone: Backbone,
    pairs: Pairs,
    tokenizer: PreTrainedTokenizerBase,
    trainer: pl.Trainer,
    folder: Path,
) -> None:
    say(
        f"Backbone:       {backbone.spec.name}, {backbone.width} wide, "
        f"{backbone.image_size} x {backbone.image_size} pixels, from {config.model_weights}"
    )
    say(f"Objectives:     {', '.join(f'{n} x {w:g}' for n, w in config.weights.items())}")
    say(f"Device:         {trainer.strategy.root_device}, {trainer.precision}")
    say(f"Pairs:          {pairs.train_size} to train on, {pairs.validation_size} to validate")
    if pairs.manifests is not None:
        train, validation = pairs.manifests
        skipped = list(train.skipped)  # a split shares its table's list
        if config.val_csv is not None:
            skipped += validation.skipped
        if skipped:
            say(f"                {len(skipped)} rows left out because they cannot be used")
        reports = train.reports + validation.reports
        lengths = report_lengths(tokenizer, reports)
        cut = sum(length > config.max_text_tokens for length in lengths)
        repeated = len(reports) - len(set(reports))
        say(
            f"Reports:        {cut} of {len(reports)} ({100 * cut / len(reports):.1f} %) are "
            f"longer than {config.max_text_tokens} WordPieces and are cut; "
            f"{100 * repeated / len(reports):.0f} % repeat another word for word"
        )
    say(f"Run folder:     {folder}\n")
