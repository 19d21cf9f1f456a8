"""The numbers behind the report as CSV, with all their digits."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence

from linprobe.report.comparison import Pair
from linprobe.report.summary import Row
from linprobe.report.tables import MEAN
from linprobe.report.wilcoxon import stars
from retfiner.common.results import METRIC_INFO, Run

_CSV_FIELDS: dict[str, Callable[[Row], object]] = {
    "pair": lambda row: row.pair,
    "data_set": lambda row: row.data_set or MEAN,
    "base_mean": lambda row: float(row.base.mean()),
    "base_std": lambda row: row.base_std,
    "refined_mean": lambda row: float(row.refined.mean()),
    "refined_std": lambda row: row.refined_std,
    "change": lambda row: row.change,
    "change_low": lambda row: row.interval[0] if row.interval else math.nan,
    "change_high": lambda row: row.interval[1] if row.interval else math.nan,
    "pairs_that_differ": lambda row: row.test.n,
    "pairs_unchanged": lambda row: row.test.zeros,
    "rank_sum": lambda row: row.test.statistic,
    "p": lambda row: row.test.p,
    "p_holm": lambda row: row.p_holm,
    "stars": lambda row: stars(row.test.p),
}


def rows_csv(rows: Sequence[Row]) -> str:
    """Render the rows with all their digits; a cell is empty where a number does not exist."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_CSV_FIELDS)
    for row in rows:
        values = [read(row) for read in _CSV_FIELDS.values()]
        writer.writerow(["" if isinstance(v, float) and math.isnan(v) else v for v in values])
    return stream.getvalue()


def runs_csv(pairs: Sequence[Pair]) -> str:
    """Render every run, one a line: all metrics and their bootstrap intervals, as shares."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    bounds = [f"{name}{end}" for name in METRIC_INFO for end in ("", "_low", "_high")]
    writer.writerow(["model", "data_set", "seed", "train_fraction", "fingerprint", *bounds])
    written = set()
    for pair in pairs:
        for fraction, places in sorted(pair.runs.items()):
            for run in [both[index] for index in (0, 1) for both in places.values()]:
                if (run.key, fraction) not in written:  # a base model may stand in several pairs
                    written.add((run.key, fraction))
                    writer.writerow(_run_values(run))
    return stream.getvalue()


def _run_values(run: Run) -> list[object]:
    key = run.key
    model = f"{key.version}/{key.model}"
    values = [model, key.data_set, key.seed, run.train_fraction, run.fingerprint[:12]]
    for name in METRIC_INFO:
        interval = run.metrics.get("intervals", {}).get(name) or ["", ""]
        value = run.metrics["values"].get(name)
        values += ["" if value is None else value, *interval]
    return values
