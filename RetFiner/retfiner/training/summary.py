"""What a run says of itself on the terminal: before it begins, and when it is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl

from retfiner.common.commands import command
from retfiner.data.batch import Collate, identify_reports
from retfiner.data.datamodule import Pairs, PairsDataModule
from retfiner.data.manifest import Manifest
from retfiner.text.tokenizer import report_lengths
from retfiner.training.curves import draw_curves
from retfiner.training.distributed.collectives import exchange, world_size
from retfiner.training.distributed.fsdp import ShardedStrategy
from retfiner.training.distributed.launch import is_first_process, print_once
from retfiner.training.module import RefinementModule
from retfiner.training.recall import chance_recall

EXTRACTION = "RetFiner/get_vision_backbone_for_linprobing.py"


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


def announce(
    trainer: pl.Trainer, module: RefinementModule, batches: PairsDataModule, folder: Path
) -> None:
    """Print what is about to be trained, on what and where.

    Args:
        trainer: Lightning's trainer.
        module: The model with its losses.
        batches: The data.
        folder: The run's folder.
    """
    backbone, pairs = module.model.backbone, batches.pairs
    print_once(
        f"Backbone:       {backbone.spec.name}, {backbone.width} wide, "
        f"{backbone.image_size} x {backbone.image_size} pixels, from "
        f"{module.description['settings']['model_weights']}"
    )
    losses = ", ".join(f"{name} x {w:g}" for name, w in module.loss_weights.items())
    print_once(f"Objectives:     {losses}")
    split = " with split weights" if isinstance(trainer.strategy, ShardedStrategy) else ""
    several = f"{trainer.world_size} processes{split}, " if trainer.world_size > 1 else ""
    print_once(f"Device:         {several}{trainer.strategy.root_device}, {trainer.precision}")
    print_once(
        f"Pairs:          {pairs.train_size} to train on, {pairs.validation_size} to validate"
    )
    if pairs.manifests is not None and is_first_process():
        _announce_reports(*pairs.manifests, batches.collate)
    print_once(f"Run folder:     {folder}\n")


def _announce_reports(train: Manifest, validation: Manifest, collate: Collate) -> None:
    skipped = list(train.skipped)
    if validation.source != train.source:  # a split shares its table's list
        skipped += validation.skipped
    if skipped:
        print(f"                {len(skipped)} rows left out because they cannot be used")
    reports = train.reports + validation.reports
    longest = collate.max_tokens
    cut = sum(length > longest for length in report_lengths(collate.tokenizer, reports))
    repeated = len(reports) - len(set(reports))
    print(
        f"Reports:        {cut} of {len(reports)} ({100 * cut / len(reports):.1f} %) are "
        f"longer than {longest} WordPieces and are cut; "
        f"{100 * repeated / len(reports):.0f} % repeat another word for word"
    )


def report(folder: Path, pairs: Pairs) -> RunResult:
    """Say what a finished run achieved, and where it lies.

    Args:
        folder: The run's folder.
        pairs: The data, for what guessing would recall.
    """
    if is_first_process() and not (folder / "curves.png").is_file():
        draw_curves(folder / "metrics.csv", folder / "curves.png")  # killed before they were
    # The first process alone knows the folder and what lies in it.
    knows = is_first_process() or world_size() == 1
    folder, (before, best) = exchange((folder, _read_metrics(folder) if knows else ({}, {})))[0]
    print_once(f"\n{format_summary(before, best, _chance(pairs))}")
    print_once(
        f"\nRefined model:  {folder / 'best-model.ckpt'}"
        f"\nCurves:         {folder / 'curves.png'}"
        f"\nNext:           {command(EXTRACTION, '--path_to_model', folder / 'best-model.ckpt')}"
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


def format_summary(
    before: dict[str, float], best: dict[str, float], chance: dict[str, float]
) -> str:
    """Format what a run achieved on validation as a small table.

    Args:
        before: Validation metrics before the first step; empty for a resumed run.
        best: Those of the best checkpoint.
        chance: Recall of a random order, by the same names; may be empty.
    """
    lines = [f"{'on patients never trained on':<30}{'before':>10}{'after':>10}{'chance':>10}"]
    losses = sorted((n for n in best if "recall" not in n), key=lambda n: (n != "val/loss", n))
    recalls = sorted(
        (n for n in best if "recall" in n), key=lambda n: (n.split("@")[0], int(n.split("@")[1]))
    )
    for name in losses + recalls:
        plain = name.removeprefix("val/")
        if "recall" in plain:
            label = plain.replace("_", " ")
            at_random = chance.get(plain)
            cells = [
                f"{100 * value:.1f} %"
                for value in (before.get(name), best[name], at_random)
                if value is not None
            ]
            if before.get(name) is None:
                cells.insert(0, "")
        else:
            label = f"loss, {'sum' if plain == 'loss' else plain.upper()}"
            cells = [f"{before[name]:.3f}" if name in before else "", f"{best[name]:.3f}"]
        lines.append(f"{label:<30}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)
