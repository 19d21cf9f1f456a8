"""Probe a frozen backbone on labelled B-scans.

    python probe.py --init_weights _weights/base.pth --data_root _data --data_set OCTID OCTDL
    python probe.py --init_weights _weights/base.pth --ft_weights _weights/refined.pth ...

``--help`` lists every number of the protocol. ``report.py`` compares what this writes.
"""

from __future__ import annotations

import statistics
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
    from linprobe.find_weights import find_weights
    from retfiner.common.cli import parse
    from retfiner.vision.sniff import require_checkpoint_file

    config = parse(ProbeConfig, "Probe a frozen backbone on labelled B-scans.")
    config = find_weights(config, Path(__file__).resolve().parent)
    for weights in (config.init_weights, config.ft_weights):
        if weights is not None:
            require_checkpoint_file(weights)
    list_data_sets(config.data_root, config.data_set)
    from linprobe.probing import run_sweep  # needs torch, which a wrong path does not wait for

    print("Test balanced accuracy in percent, mean ± standard deviation over seeds")
    path, _ = run_sweep(config, _print_summary)
    print(f"\nResults: {config.results / path}")
    print(f"Next:    {_next_commands(config, path)}")


def _next_commands(config: ProbeConfig, path: str) -> str:
    """Say how the other model is probed, unless it was, and both are compared."""
    from linprobe.config import as_words
    from retfiner.common.commands import command

    model = path.partition("/")[2]
    if config.ft_weights is not None:
        base, refined = f"baseline/{model}", path
        other = replace(config, ft_weights=None, version="baseline", model=model)
    else:
        base, refined = path, f"refined/{model}"
        weights = Path("path/to/refined.pth")
        other = replace(config, ft_weights=weights, version="refined", model=model)
    words = ("--results", config.results, "--base", base, "--refined", refined)
    report = command("linear_probing/report.py", *words)
    if all((config.results / name).is_dir() for name in (base, refined)):
        return report
    return f"{command('linear_probing/probe.py', *as_words(other))}\n         {report}"


def _print_summary(summary: Summary) -> None:
    scores = [100 * score for score in summary.scores]
    mean = statistics.fmean(scores)
    spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    share = "" if summary.fraction == 1 else f", {summary.fraction:.3g} of the training images"
    done = f", {summary.skipped} of them finished before" if summary.skipped else ""
    print(
        f"{summary.data_set}{share}: {mean:.2f}{spread} ({len(scores)} seeds{done}), "
        f"{summary.seconds:.1f} s",
        flush=True,
    )
    for note in summary.notes:
        print(f"    note: {note}")


if __name__ == "__main__":
    run_entry_point(main)
