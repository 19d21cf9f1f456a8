"""The kinds of probe, each from the same features to probabilities on the test images.

To add one, write a file with a function of a task and the training images of each seed, and add a
line to :data:`PROBES`.
"""

from __future__ import annotations

from collections.abc import Callable

from linprobe.probes.knn import probe_knn
from linprobe.probes.linear import probe_linear
from linprobe.probes.logistic import probe_logistic
from linprobe.task import Outcome, ProbingTask, Rows

PROBES: dict[str, Callable[[ProbingTask, dict[int, Rows]], dict[int, Outcome]]] = {
    "linear": probe_linear,
    "knn": probe_knn,
    "logistic": probe_logistic,
}
"""Every kind of probe by the name ``--probe`` takes."""
RANDOM = ("linear",)
"""The kinds that draw random numbers themselves; others differ by their training images alone."""
