"""Linear probing of retinal foundation models: features, heads, and the report.

A run is described by :mod:`retfiner.common.results`, scored by
:mod:`retfiner.common.classification`, and compared with others by :mod:`linprobe.report`.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("retfiner") is None:  # not installed: it lies beside this folder
    sys.path.append(str(Path(__file__).resolve().parents[2] / "RetFiner"))
