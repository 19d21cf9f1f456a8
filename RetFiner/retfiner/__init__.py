"""Refine retinal vision foundation models on OCT B-scans and the reports that describe them.

::

    from retfiner import load_model

    model = load_model("models/<name>")
    model.similarity(["scan.png"], ["Subretinal fluid.", "Normal macula."])

What is heavy is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retfiner.api import RefinedModel, load_model
    from retfiner.vision import load_backbone

__all__ = ["RefinedModel", "load_backbone", "load_model"]


def __getattr__(name: str) -> Any:
    """Import what is asked for: torch and its kind take seconds."""
    if name in __all__:
        module = "retfiner.vision" if name == "load_backbone" else "retfiner.api"
        return getattr(import_module(module), name)
    raise AttributeError(f"module 'retfiner' has no attribute {name!r}")
