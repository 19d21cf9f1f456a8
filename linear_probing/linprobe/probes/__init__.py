"""The kinds of probe, each from the same features to probabilities on the test images.

To add one, write a file with a function of a task and the training images of each seed, and add a
line to :data:`PROBES`.
"""

from __future__ import annotations

from collections.abc import Callable

from linprobe.probes.attentive import probe_attentive
from linprobe.probes.finetune import probe_finetune
from linprobe.probes.knn import probe_knn
from linprobe.probes.linear import probe_linear
from linprobe.probes.logistic import probe_logistic
from linprobe.probes.mil import probe_mil
from linprobe.probes.prototype import probe_prototype
from linprobe.task import Outcome, ProbingTask, Rows

PROBES: dict[str, Callable[[ProbingTask, dict[int, Rows]], dict[int, Outcome]]] = {
    "linear": probe_linear,
    "knn": probe_knn,
    "logistic": probe_logistic,
    "prototype": probe_prototype,
    "attentive": probe_attentive,
    "mil": probe_mil,
    "finetune": probe_finetune,
}
"""Every kind of probe by the name ``--probe`` takes."""
OF_ANY_TASK = ("linear", "knn", "attentive", "finetune")
"""The kinds that predict several labels or values as well as classes."""
RANDOM = ("linear", "attentive", "mil", "finetune")
"""The kinds that draw random numbers themselves; others differ by their training images alone."""
