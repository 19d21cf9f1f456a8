"""Probe a frozen backbone on labelled B-scans.

    python probe.py --init_weights _weights/base.pth --data_root _data --data_set OCTID OCTDL
    python probe.py --init_weights _weights/base.pth --ft_weights _weights/refined.pth ...

``--help`` lists every number of the protocol. ``report.py`` compares what this writes.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from linprobe.config import ProbeConfig
from retfiner.common.cli import parse
from retfiner.common.errors import run_entry_point

if TYPE_CHECKING:
    from linprobe.probing import Summary


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, probe, and say what came out.

    Args:
        arguments: The words of the command line; by default those of the process.
    """
    config = parse(ProbeConfig, "Probe a frozen backbone on labelled B-scans.", arguments)
    from linprobe.probing import run_sweep  # after parsing, so that --help answers at once

    print("Test balanced accuracy in percent, mean ± standard deviation over seeds")
    path, _ = run_sweep(config, _print_summary)
    model = path.partition("/")[2]
    print(f"\nResults: {config.results / path}")
    base = f"baseline/{model}" if config.ft_weights is not None else path
    refined = path if config.ft_weights is not None else f"refined/{model}"
    other = "the base model" if config.ft_weights is not None else "a refined model"
    print(f"Next:    probe {other} with the same settings, then")
    print(f"         python report.py --results {config.results} --base {base} --refined {refined}")


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
