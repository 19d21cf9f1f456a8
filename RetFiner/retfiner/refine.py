"""A refinement run from settings to files: parse, build, fit are all there is."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from retfiner.batch import identify_reports
from retfiner.build import build_model, describe
from retfiner.checkpoints import remove_leftovers
from retfiner.common.errors import InputError
from retfiner.common.faults import TRAINING_MEMORY, explained_faults
from retfiner.common.holding import hold
from retfiner.common.stopping import StopSignals
from retfiner.config import RefineConfig
from retfiner.data.datamodule import Pairs, PairsDataModule, load_pairs
from retfiner.data.fingerprint import fingerprint
from retfiner.data.pairs import Collate
from retfiner.distributed import exchange, world_size
from retfiner.launch import Placement, is_first_process, place
from retfiner.logbook import draw_curves, format_summary
from retfiner.metrics import chance_recall
from retfiner.model import RetFiner
from retfiner.module import RefinementModule
from retfiner.resuming import AUTO, Resumed, find_newest, read_resumed, require_same_run
from retfiner.runs import find_resume_checkpoint, make_run_folder, run_name, write_config
from retfiner.sharded import ShardedStrategy
from retfiner.text.encoder import load_text_encoder
from retfiner.text.tokenizer import load_tokenizer, report_lengths
from retfiner.trainer import build_trainer
from retfiner.vision import Backbone, load_backbone
from retfiner.vision.preprocessing import evaluation_transform


def say(text: str) -> None:
    """Print, in the first of a run's processes."""
    if is_first_process():
        print(text)


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


@explained_faults(memory=TRAINING_MEMORY)
def refine(config: RefineConfig) -> RunResult:
    """Refine a vision model on image-report pairs and write everything into the run's folder.

    Args:
        config: The settings.

    Raises:
        InputError: If anything the user gave cannot be used.
    """
    _quieten()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    placement = place(config)
    path = None if config.resume in (None, AUTO) else find_resume_checkpoint(config.resume)
    resumed = None if path is None else read_resumed(path)

    backbone = load_backbone(config.model_weights, config.backbone, config.image_size)
    text, tokenizer = load_text_encoder(config.text_encoder), load_tokenizer(config.text_encoder)
    _check_text_length(config, text.config.max_position_embeddings)
    pairs = load_pairs(config, evaluation_transform(backbone))
    _check_shares(pairs, placement)
    model = build_model(config, backbone, text, tokenizer)
    description = describe(config, backbone, text, tokenizer)
    description |= {"train_pairs": pairs.train_size, "validation_pairs": pairs.validation_size}
    description["provenance"]["data_sha256"] = fingerprint(pairs, config.dataset)
    name = run_name(config, backbone.spec.name)
    resumed = _choose_run(config, resumed, name, description)
    module = _module(config, model, description)
    size = (backbone.spec.in_chans, backbone.image_size, backbone.image_size)
    collate = Collate(
        tokenizer,
        config.max_text_tokens,
        size,
        config.on_bad_row,
        least=2 if placement.processes == 1 else 1,
    )
    datamodule = PairsDataModule(pairs, collate, config)

    folder = _folder_of(config, resumed, name)
    steps = -(-pairs.train_size // (config.batch_size * placement.processes))
    with hold(folder, remove_if_empty=resumed is None), StopSignals() as signals:
        resumed = None if resumed is None else read_resumed(resumed.path)  # now that it is ours
        if resumed is not None and resumed.is_finished(config):
            say(f"The run in {folder} is finished: {resumed.epochs} epochs.")
            return _report(folder, pairs)
        if is_first_process():
            remove_leftovers(folder)
        trainer = build_trainer(config, placement, folder, steps, signals)
        if is_first_process():
            write_config(folder, config, _facts(description, trainer, pairs))
            _announce(config, backbone, pairs, tokenizer, trainer, folder)
        if config.compile:
            model.compile_encoders()
        if resumed is None:
            trainer.validate(module, datamodule, verbose=False)
        path = None if resumed is None else resumed.path
        trainer.fit(module, datamodule, ckpt_path=path, weights_only=True)
    return _report(folder, pairs)


def _module(config: RefineConfig, model: RetFiner, description: dict[str, Any]) -> RefinementModule:
    return RefinementModule(
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


def _choose_run(
    config: RefineConfig, named: Resumed | None, name: str, description: dict[str, Any]
) -> Resumed | None:
    """Return the run to go on with, whose id the description gets, or None for a new one."""
    resumed = named
    if named is not None:
        require_same_run(named, description)
    elif config.resume == AUTO:
        resumed = find_newest(config.output_dir, name, description)
        where = "a new one begins" if resumed is None else f"going on with {resumed.path}"
        say(f"Resume:         the newest run of these settings: {where}")
    if resumed is not None:
        description["provenance"]["run_id"] = resumed.description["provenance"]["run_id"]
    return resumed


def _folder_of(config: RefineConfig, resumed: Resumed | None, name: str) -> Path:
    """Return where the run lies; the first process makes the folder of a new one."""
    if resumed is not None:
        return resumed.folder
    if is_first_process():
        return make_run_folder(config.output_dir, name)
    return config.output_dir / name  # for now: the first process tells which it made


def _report(folder: Path, pairs: Pairs) -> RunResult:
    """Say what a finished run achieved, and where it lies."""
    if is_first_process() and not (folder / "curves.png").is_file():
        draw_curves(folder / "metrics.csv", folder / "curves.png")  # killed before they were
    # The first process alone knows the folder and what lies in it.
    knows = is_first_process() or world_size() == 1
    folder, (before, best) = exchange((folder, _read_metrics(folder) if knows else ({}, {})))[0]
    say(f"\n{format_summary(before, best, _chance(pairs))}")
    say(
        f"\nRefined model:  {folder / 'best-model.ckpt'}"
        f"\nCurves:         {folder / 'curves.png'}"
        "\nNext:           python get_vision_backbone_for_linprobing.py --path_to_model "
        f"{folder / 'best-model.ckpt'}"
    )
    return RunResult(folder, before, best)


def _read_metrics(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Return the validation metrics before training, and of the epoch with the lowest loss."""
    import pandas as pd

    table = pd.read_csv(folder / "metrics.csv").dropna(subset=["val/loss"])
    names = [name for name in table.columns if name.startswith("val/")]
    trained = table.iloc[1:]  # the first row is the validation before training
    rows = table.iloc[0], trained.loc[trained["val/loss"].idxmin()]
    before, best = ({name: float(row[name]) for name in names} for row in rows)
    return before, best


def _chance(pairs: Pairs) -> dict[str, float]:
    """Return the recall of a random order on validation, where the reports are at hand."""
    if pairs.manifests is None:
        return {}
    return chance_recall(identify_reports(pairs.manifests[1].reports))


def _quieten() -> None:
    """Keep libraries from talking about themselves; their warnings still come through."""
    for library in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(library).setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    torch.set_float32_matmul_precision("high")
    # Lightning remarks on a folder that we made and on its own use of torch; neither is the user's.
    warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty")
    # What processes log is the same in all of them: it was averaged in the step.
    warnings.filterwarnings("ignore", r"It is recommended to use `self.log\(.*sync_dist=True")
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)")


def _check_shares(pairs: Pairs, placement: Placement) -> None:
    smallest = min(pairs.train_size, pairs.validation_size)
    if smallest < placement.processes:
        raise InputError(
            "there are fewer pairs than devices",
            got=f"{pairs.train_size} to train on and {pairs.validation_size} to validate for "
            f"{placement.processes} devices",
            expected="at least one for each",
        )


def _check_text_length(config: RefineConfig, longest: int) -> None:
    if config.max_text_tokens > longest:
        raise InputError(
            "--max_text_tokens is longer than the text encoder can read",
            got=config.max_text_tokens,
            expected=f"at most {longest}",
        )


def _facts(description: dict[str, Any], trainer: pl.Trainer, pairs: Pairs) -> dict[str, Any]:
    return {
        "backbone": description["backbone"],
        "image_size": description["image_size"],
        "provenance": description["provenance"],
        "device": str(trainer.strategy.root_device),
        "processes": trainer.world_size,
        "precision": str(trainer.precision),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
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
    split = " with split weights" if isinstance(trainer.strategy, ShardedStrategy) else ""
    several = f"{trainer.world_size} processes{split}, " if trainer.world_size > 1 else ""
    say(f"Device:         {several}{trainer.strategy.root_device}, {trainer.precision}")
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
