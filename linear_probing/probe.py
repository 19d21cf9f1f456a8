"""Probe frozen backbones on labelled B-scans.

    python probe.py --init_weights _weights/base.pth --data_root _data --data_set OCTID OCTDL
    python probe.py --init_weights _weights/base.pth --ft_weights _weights/refined.pth ...
    python probe.py --weights base=_weights/base.pth refined=_weights/refined.pth other=other.pth

``--help`` lists every number of the protocol. ``report.py`` compares what this writes; the last
form ends in the report.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import linprobe  # noqa: F401 - it finds retfiner where that is not installed
from retfiner.common.errors import run_entry_point

if TYPE_CHECKING:
    from linprobe.config import ProbeConfig
    from linprobe.probing import Summary


def main() -> None:
    """Parse the command line, probe, and say what came out."""
    from linprobe.config import ProbeConfig
    from linprobe.datasets import list_data_sets
    from retfiner.common.cli import parse
    from retfiner.common.progress import LOADING, progress
    from retfiner.vision.sniff import require_checkpoint_file

    config = parse(ProbeConfig, "Probe frozen backbones on labelled B-scans.")
    config = _with_files(config)
    given = [Path(word.partition("=")[2]) for word in config.weights]
    for weights in (*given, config.init_weights, config.ft_weights):
        if weights is not None:
            require_checkpoint_file(weights)
    list_data_sets(config.data_root, config.data_set, config.external)
    others = _others(config)
    with progress(LOADING):  # torch, which a wrong path does not wait for
        from linprobe.probing import run_sweep

    print("Test balanced accuracy in percent, mean ± standard deviation over seeds")
    models, summaries = run_sweep(config, _print_summary)
    print(f"\nResults: {', '.join(str(config.results / model) for model in models)}")
    if config.weights:
        _report(config, models, summaries, others)
    else:
        print(f"Next:    {_next_commands(config, models[0])}")


def _with_files(config: ProbeConfig) -> ProbeConfig:
    """Put the file that was downloaded in place of each name such as ``RETFound``.

    Raises:
        InputError: If published weights of that name are neither here nor in pretrained_weights.
    """
    from retfiner.vision.published.find import weights_at

    home = Path(__file__).resolve().parent
    folders = (home / "_weights", home.parent / "pretrained_weights")
    base, refined = (
        None if path is None else weights_at(path, folders)
        for path in (config.init_weights, config.ft_weights)
    )
    pairs = (word.partition("=") for word in config.weights)
    weights = [f"{n}={weights_at(Path(path).expanduser(), folders)}" for n, _, path in pairs]
    return replace(config, init_weights=base, ft_weights=refined, weights=weights)


def _others(config: ProbeConfig) -> list[str]:
    """Name the models whose predictions are brought along, which are read before anything else."""
    if not config.predictions:
        return []
    from linprobe.report.loading import tables_at
    from retfiner.common.predictions import read_table

    tables = map(read_table, tables_at(config.predictions))
    return sorted({name for table in tables for name in table["model"]})


def _report(
    config: ProbeConfig, models: list[str], summaries: list[Summary], others: list[str]
) -> None:
    """Compare the models that were probed, the first as the base, and those brought along."""
    from linprobe.report.build import build_report, say
    from linprobe.report.config import ReportConfig

    report = ReportConfig(
        base=models[:1],
        refined=[*models[1:], *others],
        results=config.results,
        predictions=config.predictions,
        data_set=sorted({summary.data_set for summary in summaries}),
        protocol=sorted({summary.protocol for summary in summaries}),
        unit=config.unit,
    )
    print()
    say(build_report(report), report.folder)


def _next_commands(config: ProbeConfig, model: str) -> str:
    """Say how the other model is probed, unless it was, and both are compared."""
    from retfiner.common.commands import command

    name = model.rpartition("-")[0]
    other_version = "baseline" if config.ft_weights is not None else "refined"
    other_name = f"{other_version}/{name.partition('/')[2]}"
    probed = list(config.results.glob(f"{other_name}-*"))
    own = name if len(list(config.results.glob(f"{name}-*"))) == 1 else model
    base, refined = (other_name, own) if config.ft_weights is not None else (own, other_name)
    unit = () if config.unit == "image" else ("--unit", config.unit)
    named = ("--results", config.results, "--base", base, "--refined", refined, *unit)
    report = command("linear_probing/report.py", *named)
    if probed:
        return report
    words = _without(sys.argv[1:], ("--ft_weights", "--version"))
    words += [] if config.ft_weights is not None else ["--ft_weights", "path/to/refined.pth"]
    return f"{command('linear_probing/probe.py', *words)}\n         {report}"


def _without(words: list[str], flags: Sequence[str]) -> list[str]:
    """Leave flags out of a command line, with their values, however often they are given."""
    kept, is_value = [], False
    for word in words:
        if is_value or word.partition("=")[0] in flags:
            is_value = not is_value and "=" not in word
        else:
            kept.append(word)
    return kept


def _print_summary(summary: Summary) -> None:
    from linprobe.report.tables import with_spread
    from retfiner.common.metrics import ALL_METRICS

    metric = ALL_METRICS[summary.metric]
    scores = [metric.scale * score for score in summary.scores]
    spread = statistics.stdev(scores) if len(scores) > 1 else math.nan
    score = with_spread(statistics.fmean(scores), spread, metric.digits)
    share = f", {summary.amount}" if str(summary.amount) else ""
    done = f", {summary.skipped} of them finished before" if summary.skipped else ""
    runs = f"{len(scores)} seeds" if len(scores) > 1 else "1 run"
    other = "" if summary.metric == "balanced_accuracy" else f"{metric.axis} "
    print(
        f"{summary.model} on {summary.data_set}{share}: {other}{score} "
        f"(chance {metric.scale * summary.chance:.1f}; {runs}{done}), {summary.seconds:.1f} s",
        flush=True,
    )
    for note in summary.notes:
        print(f"    note: {note}")


if __name__ == "__main__":
    run_entry_point(main)
