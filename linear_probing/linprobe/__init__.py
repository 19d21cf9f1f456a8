"""Linear probing of retinal foundation models: features, heads, and the report.

A run ends in a table of predictions (:mod:`retfiner.common.predictions`), of which metrics
(:mod:`retfiner.common.metrics`), statistics (:mod:`linprobe.statistics`) and :mod:`linprobe.report`
are functions.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("retfiner") is None:  # not installed: it lies beside this folder
    sys.path.append(str(Path(__file__).resolve().parents[2] / "RetFiner"))
