"""What a run says of itself on the terminal: before it begins, and when it is done."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl

from retfiner.common.commands import command
from retfiner.data.after_cut import cut_reports, unknown_note
from retfiner.data.batch import Collate
from retfiner.data.datamodule import PairsDataModule
from retfiner.data.manifest import Manifest
from retfiner.training.callbacks.guard import lacks_for_guard
from retfiner.training.curves import draw_curves
from retfiner.training.distributed.collectives import all_gather_objects, world_size
from retfiner.training.distributed.fsdp import ShardedStrategy
from retfiner.training.distributed.launch import is_rank_zero, rank_zero_print
from retfiner.training.guard import Change, encoder_advice
from retfiner.training.module import RefinementModule
from retfiner.training.monitor import Monitor
from retfiner.training.verdict import ADVICE, Objective, loss_names, read_objectives
from retfiner.vision import read_checkpoint

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
    trainer: pl.Trainer,
    module: RefinementModule,
    batches: PairsDataModule,
    folder: Path,
    reasons: Sequence[str],
) -> None:
    """Print what is about to be trained, on what, where, and by which recipe."""
    backbone, pairs = module.model.backbone, batches.pairs
    rank_zero_print(
        f"Backbone:       {backbone.title}, {backbone.image_size} x {backbone.image_size} pixels,"
        f" from {module.description['settings']['model_weights']}"
    )
    for note in backbone.notes:
        rank_zero_print(f"                {note}")
    if backbone.norm is not None and not backbone.spec.text_norm:
        rank_zero_print("                its final norm stays as it is: no objective reads it")
    losses = ", ".join(f"{name} x {w:g}" for name, w in module.loss_weights.items())
    rank_zero_print(f"Objectives:     {losses}")
    if module.model.chunk_size is not None:
        most = batches.batch_size * trainer.world_size
        at_once = f"{module.model.chunk_size} at a time on each device"
        rank_zero_print(f"Contrast:       up to {most} pairs together, computed {at_once}")
    split = " with split weights" if isinstance(trainer.strategy, ShardedStrategy) else ""
    several = f"{trainer.world_size} processes{split}, " if trainer.world_size > 1 else ""
    rank_zero_print(f"Device:         {several}{trainer.strategy.root_device}, {trainer.precision}")
    rank_zero_print(
        f"Pairs:          {pairs.train_size} to train on, {pairs.validation_size} to validate"
    )
    if pairs.manifests is not None and is_rank_zero():
        _announce_reports(*pairs.manifests, batches.collate)
    rank_zero_print("Recipe:         " + "\n                ".join(reasons))
    rank_zero_print(f"Run folder:     {folder}\n")


def _announce_reports(train: Manifest, validation: Manifest, collate: Collate) -> None:
    skipped, notes = list(train.skipped), list(train.notes)
    if validation.source != train.source:  # a split shares its table's lists
        skipped += validation.skipped
        notes += validation.notes
    if skipped:
        print(f"                {len(skipped)} rows left out because they cannot be used")
    reports = train.reports + validation.reports
    cut = cut_reports(collate.tokenizer, reports, collate.max_tokens)
    repeated = len(reports) - len(set(reports))
    is_drawn = collate.sentence_seed is not None
    what = "sentences of them are drawn" if is_drawn else "are cut"
    print(
        f"Reports:        {cut.cut} of {len(reports)} ({100 * cut.cut / len(reports):.1f} %) are "
        f"longer than {cut.limit} WordPieces and {what}; "
        f"{100 * repeated / len(reports):.0f} % repeat another word for word"
    )
    if cut.alike and not is_drawn:
        print(
            f"                {cut.alike} of {cut.distinct} distinct reports are the same as"
            f" another after the cut at {cut.limit} WordPieces: raise --max_text_tokens"
        )
    unknown = unknown_note(cut)
    for note in [*notes, *([f"note: {unknown}"] if unknown else [])]:
        print(textwrap.fill(f"Table:          {note}", 100, subsequent_indent=" " * 16))


def report(folder: Path, batches: PairsDataModule, monitor: Monitor) -> RunResult:
    """Say what a finished run achieved, and where it lies."""
    if is_rank_zero() and not (folder / "curves.png").is_file():
        draw_curves(folder / "metrics.csv", folder / "curves.png")  # killed before they were
    # The first process alone knows the folder and what lies in it.
    knows = is_rank_zero() or world_size() == 1
    folder, (before, best) = all_gather_objects(
        (folder, _read_metrics(folder, monitor) if knows else ({}, {}))
    )[0]
    rank_zero_print(f"\n{format_summary(before, best)}")
    unmeasured = lacks_for_guard(batches.pairs) or "no scan of another patient can be read"
    rank_zero_print("\n".join(["", *describe_encoder(Change.read(best, "guard/"), unmeasured)]))
    rank_zero_print(
        f"\nRefined model:  {folder / 'best-model.ckpt'}"
        f"\nCurves:         {folder / 'curves.png'}"
        f"\nNext:           {command(EXTRACTION, '--path_to_model', folder / 'best-model.ckpt')}"
    )
    return RunResult(folder, before, best)


def _read_metrics(folder: Path, monitor: Monitor) -> tuple[dict[str, float], dict[str, float]]:
    """Return the validation metrics before training, and of the epoch that was kept."""
    import pandas as pd

    table = pd.read_csv(folder / "metrics.csv").dropna(subset=["val/loss"])
    names = [name for name in table if name.split("/")[0] in _SHOWN]
    trained = table.iloc[1:]  # the first row is the validation before training
    # By what the file says of itself: weights of the best epoch may have been lost meanwhile.
    epoch = read_checkpoint(folder / "best-model.ckpt").content.get("epoch")
    kept = trained[trained["epoch"] == epoch]
    rows = table.iloc[0], monitor.best_row(trained if kept.empty else kept)
    before, best = ({name: float(row[name]) for name in names} for row in rows)
    return before, best


_SHOWN = ("val", "chance", "shuffled", "guard")


def format_summary(before: dict[str, float], best: dict[str, float]) -> str:
    """Format what a run achieved on validation as a table, and what to try as lines below it.

    Args:
        before: Metrics before the first step; empty for a resumed run.
        best: Those of the best checkpoint, with what guessing gives where it was measured.
    """
    objectives = read_objectives(best)
    heads = ("before", "after", "guessing", "shuffled")
    lines = ["on patients never trained on".ljust(_LABEL) + "".join(f"{h:>10}" for h in heads)]
    for name in loss_names(best):
        values = [before.get(f"val/{name}"), best[f"val/{name}"]]
        label, verdict = "loss, sum" if name == "loss" else f"loss, {name.upper()}", ""
        if name in objectives:
            values += [objectives[name].chance, objectives[name].shuffled]
            verdict = f"  {objectives[name].verdict}"
        lines.append(_row(label, values, "{:.3f}") + verdict)
    recalls = [n.removeprefix("val/") for n in best if n.startswith("val/") and "recall" in n]
    for name in sorted(recalls, key=lambda n: (n.split("@")[0], int(n.split("@")[1]))):
        values = [before.get(f"val/{name}"), best[f"val/{name}"], best.get(f"chance/{name}")]
        shown = [None if value is None else 100 * value for value in values]
        lines.append(_row(name.replace("_", " "), shown, "{:.1f} %"))
    return "\n".join([*lines, *_advice(objectives)])


_LABEL = 30


def _row(label: str, values: Sequence[float | None], form: str) -> str:
    cells = ["" if value is None else form.format(value) for value in values]
    return (label.ljust(_LABEL) + "".join(f"{cell:>10}" for cell in cells)).rstrip()


def _advice(objectives: Mapping[str, Objective]) -> list[str]:
    """Say what the columns mean, and what to try where an objective does not learn."""
    if not objectives:
        return []
    lines = [
        "",
        "guessing: what a model that knows nothing has; shuffled: the loss with the images dealt",
        "out anew among the reports, so what lies between it and the loss comes from the image.",
    ]
    for name, objective in objectives.items():
        if objective.verdict != "learns":
            remedy = ADVICE.get((name, objective.verdict), "more pairs or epochs")
            lines.append(f"note: {name.upper()} {_IS[objective.verdict]}; try: {remedy}")
    return lines


def describe_encoder(change: Change | None, unmeasured: str) -> list[str]:
    """Say whether the encoder is better than the one the run began with, and what to try if not.

    Args:
        change: What was found, None where it was not measured.
        unmeasured: Why it was not.
    """
    if change is None:
        return [f"Encoder:        not measured: {unmeasured}"]
    lines = [
        f"Encoder:        {change}",
        "                how alike the reports of a scan and of its nearest among other patients",
        f"                are; {change.chance:.3f} by chance",
    ]
    return [*lines, *encoder_advice(change)]


_IS = {"at chance": "is at chance", "does not use the image": "does not use the image"}
