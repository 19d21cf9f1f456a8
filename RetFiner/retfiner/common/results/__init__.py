"""Probing and zero-shot runs on disk: ``__results/<version>/<model>/<data set>/seed<k>/``.

A run's folder holds ``metrics.json`` (every setting, software versions, a fingerprint of the
settings, the metrics), ``predictions.npz`` (what the report draws), ``learning_curve.csv`` and
``head.pth``. It appears whole or not at all: it is written under a hidden name beside its place and
then renamed once. A run with other settings never replaces one; it lies beside it, as
``seed<k>-<first 8 digits of the fingerprint>``.

What identifies a run is its ``settings``: what was asked for and changes the result. Keys that
start with ``weights`` say which weights were probed, those that start with ``data`` say what the
data set holds, ``train_fraction`` is the share of the training images used. All others are the
protocol. What does not change the result (paths, device, values derived from the data) goes into
``context``.
"""

from retfiner.common.results.folders import find_finished, write_run
from retfiner.common.results.reading import model_folder, read_run, read_runs
from retfiner.common.results.run import (
    METRIC_INFO,
    Run,
    RunKey,
    comparable_settings,
    fingerprint,
    software_versions,
)

__all__ = [
    "METRIC_INFO",
    "Run",
    "RunKey",
    "comparable_settings",
    "find_finished",
    "fingerprint",
    "model_folder",
    "read_run",
    "read_runs",
    "software_versions",
    "write_run",
]
