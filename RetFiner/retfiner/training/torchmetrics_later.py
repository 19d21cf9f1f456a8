"""Lightning without the whole of torchmetrics, of which it needs two classes.

``import pytorch_lightning`` imports all of torchmetrics, and that all of scipy.signal and a good
part of SciPy's statistics: two seconds of the processor before every run, for metrics of sound,
images and text that nobody asks for. torchmetrics has no switch for it and Lightning no narrower
way, so the package is put in place unread, with the two classes; whatever else is asked of it
reads the rest, just as a plain import would have.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from typing import Any

PACKAGE = "torchmetrics"
# In this order: utilities and metric import each other, and only this way round works.
NEEDED = {"utilities": (), "metric": ("Metric",), "collections": ("MetricCollection",),
          "__about__": ("__version__",)}  # fmt: skip
"""Submodules that Lightning cannot do without, and what the package itself shows of them."""


def read_torchmetrics_later() -> None:
    """Put torchmetrics in place without most of it; nothing, where it is imported already."""
    spec = None if PACKAGE in sys.modules else find_spec(PACKAGE)
    if spec is None or spec.loader is None:
        return
    package, loader = module_from_spec(spec), spec.loader

    def read_the_rest(name: str) -> Any:
        if name.startswith("__") and name != "__all__":  # what Python itself asks of a module
            raise AttributeError(f"module {PACKAGE!r} has no attribute {name!r}")
        del package.__dict__["__getattr__"]
        loader.exec_module(package)
        return getattr(package, name)

    package.__dict__["_logger"] = logging.getLogger(PACKAGE)  # utilities take it from there
    sys.modules[PACKAGE] = package
    try:
        for part, names in NEEDED.items():
            module = import_module(f"{PACKAGE}.{part}")
            package.__dict__.update({name: getattr(module, name) for name in names})
    except (ImportError, AttributeError):  # another release: import it whole, as always
        for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
        return
    package.__dict__["__getattr__"] = read_the_rest
