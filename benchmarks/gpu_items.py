"""What the parts of ``gpu.sh`` share: items that are told, and kept, one by one."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class Items:
    """Findings of a section by name, written after each: what a time limit cuts off is told.

    Args:
        path: JSON file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, dict[str, Any]] = {}

    @contextlib.contextmanager
    def item(self, name: str) -> Iterator[dict[str, Any]]:
        """Collect one item's numbers; an error is told and stops nothing else."""
        about: dict[str, Any] = {"ok": True}
        begun = time.perf_counter()
        self._keep(name, {"ok": False, "took": 0.0, "error": "not finished"})
        try:
            yield about
        except Exception as error:  # whatever it is, the next item is to be tried
            text = str(error).strip() or type(error).__name__
            about |= {"ok": False, "error": f"{type(error).__name__}: {text[:1500]}"}
        about["took"] = round(time.perf_counter() - begun, 1)
        self._keep(name, about)
        print(line_of(name, about), flush=True)

    def _keep(self, name: str, about: dict[str, Any]) -> None:
        self.found[name] = about
        self.path.write_text(json.dumps(self.found, indent=1))


def line_of(name: str, about: dict[str, Any]) -> str:
    """Say an item in a line: whether it went well, its seconds, its numbers."""
    values = ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in about.items()
        if key not in {"ok", "took", "error"} and isinstance(value, float | int | str)
    )
    said = about["error"].splitlines()[0][:300] if "error" in about else values
    return f"{'ok    ' if about['ok'] else 'FAILED'} {about['took']:>6.1f} s  {name}: {said}"


def within(about: dict[str, Any], bounds: dict[str, float]) -> None:
    """Hold numbers of an item against their bounds.

    Raises:
        ValueError: If one is not within.
    """
    about["bounds"] = bounds
    over = {k: about[k] for k, most in bounds.items() if not about[k] <= most}
    if over:
        said = ", ".join(f"{k} {v:.3g}, expected at most {bounds[k]:.3g}" for k, v in over.items())
        raise ValueError(said)


def run_section(name: str, section: Callable[[Items, str, Path], None]) -> None:
    """Run a section as ``gpu.py`` asks: ``--device``, ``--output``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    section(Items(given.output / f"{name}.json"), given.device, given.output)
