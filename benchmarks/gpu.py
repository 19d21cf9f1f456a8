"""Runs the parts of ``gpu.sh``, each a process with a time limit, and sums them up."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gpu_items import line_of

HERE = Path(__file__).parent
LIMITS = {"checks": 110, "runs": 140, "measure": 170, "profile": 50}
"""Seconds that each section may take; together just below eight minutes."""
SCRIPTS = {"checks": "gpu_checks.py", "runs": "gpu_runs.py", "measure": "gpu_measure.py",
           "profile": "gpu_profile.py"}  # fmt: skip
PACKAGES = ("torch", "timm", "transformers", "pytorch-lightning", "numpy")


def run(section: str, device: str, output: Path, limit: float) -> dict[str, Any]:
    """Run a section and return its items, also those before it failed or ran out of time."""
    file = output / f"{section}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / SCRIPTS[section]), "--device", device]
    begun = time.perf_counter()
    process = subprocess.Popen([*command, "--output", str(output)], start_new_session=True)
    try:
        status = str(process.wait(timeout=limit))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with whatever it started
        process.wait()
        status = f"stopped after {limit:.0f} s"
    seconds = round(time.perf_counter() - begun, 1)
    items = json.loads(file.read_text()) if file.is_file() else {}
    ok = status == "0" and bool(items) and all(item["ok"] for item in items.values())
    return {"ok": ok, "status": status, "seconds": seconds, "items": items}


def main() -> int:
    """Run the sections asked for; the status is 0 where everything went well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(LIMITS)}")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal")
    parser.add_argument("--output", type=Path, default=Path("gpu_results"))
    parser.add_argument("--seconds", type=float, help="a time limit for each in place of its own")
    given = parser.parse_args()
    unknown = set(given.sections) - set(LIMITS)
    if unknown:
        parser.error(f"no such section: {', '.join(unknown)}; there are {', '.join(LIMITS)}")
    given.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"device": given.device, "versions": {p: version(p) for p in PACKAGES}}
    print(", ".join(f"{name} {number}" for name, number in found["versions"].items()), flush=True)
    for section in given.sections or LIMITS:
        print(f"\n== {section}", flush=True)
        limit = given.seconds or LIMITS[section]
        found[section] = run(section, given.device, given.output.absolute(), limit)
        (given.output / "gpu.json").write_text(json.dumps(found, indent=1))
        print(f"{section}: {found[section]['seconds']} s, status {found[section]['status']}")
    sections = {name: about for name, about in found.items() if name in LIMITS}
    print("\n== summary")
    for name, about in sections.items():
        good = sum(item["ok"] for item in about["items"].values())
        print(f"{name}: {good} of {len(about['items'])} ok, {about['seconds']} s, "
              f"status {about['status']}")  # fmt: skip
        for item, found_there in about["items"].items():
            if not found_there["ok"]:
                print("  " + line_of(item, found_there))
    print(f"written: {given.output / 'gpu.json'}")
    return 0 if all(about["ok"] for about in sections.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
