"""Try random inputs for as long as is asked, and tell what came out that should not.

    python tests/fuzz/run.py --minutes 10

A finding is printed with the target and seed that repeat it; the exit status is 1 if there is one.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from retfiner.common.cli import flag, parse
from tests.fuzz.inputs import TARGETS, attempt

SLOW = 20.0
"""Seconds that no input may take, however small it is."""


@dataclass(frozen=True)
class FuzzConfig:
    """How long, from where, and what."""

    minutes: float = flag("how long to try", 1.0)
    seed: int = flag("first seed; by default another one each time", -1)
    target: str = flag("one target alone", "")


def main() -> None:
    config = parse(FuzzConfig, "Try random inputs.")
    warnings.simplefilter("ignore")
    names = [config.target] if config.target else list(TARGETS)
    seed = config.seed if config.seed >= 0 else random.SystemRandom().getrandbits(32)
    counts: Counter[tuple[str, str]] = Counter()
    findings: dict[str, str] = {}
    end = time.monotonic() + 60 * config.minutes
    with tempfile.TemporaryDirectory(prefix="retfiner-fuzz-") as folder:
        while time.monotonic() < end:
            for name in names:
                begin = time.monotonic()
                try:
                    outcome = attempt(name, seed, Path(folder))
                except Exception as error:
                    outcome = "FOUND"
                    last = traceback.extract_tb(error.__traceback__)[-1]
                    place = f"{name}: {type(error).__name__} at {last.filename}:{last.lineno}"
                    findings.setdefault(place, f"seed {seed}: {str(error)[:200]}")
                if time.monotonic() - begin > SLOW:
                    findings.setdefault(f"{name}: slow", f"seed {seed}")
                counts[name, outcome] += 1
            seed += 1
    for name in names:
        row = {outcome: n for (target, outcome), n in sorted(counts.items()) if target == name}
        print(f"{name:<20} {row}")
    print(f"{sum(counts.values())} inputs")
    for place, what in findings.items():
        print(f"FOUND {place}: {what}")
    raise SystemExit(1 if findings else 0)


if __name__ == "__main__":
    main()
