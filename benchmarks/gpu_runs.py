"""Do the scripts run on a GPU, and does a run that was interrupted go on to the bit?

Phantoms, a small ViT and a small BERT, made by the scripts themselves; runs that do not need each
other run beside each other.
"""

from __future__ import annotations

import csv
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from gpu_items import Items, run_section

ROOT = Path(__file__).parent.parent
RUNS: dict[str, list[object]] = {
    "16-mixed": ["--precision", "16-mixed"],
    "bf16-mixed": ["--precision", "bf16-mixed"],
    "checkpointing": ["--gradient_checkpointing"],
    "compiled": ["--compile"],
}


DETERMINISTIC = ["--deterministic", "--max_epochs", 6]
"""Long enough to be interrupted."""


class Script:
    """A script that runs, and what it printed.

    Args:
        folder: Where its output is kept.
        name: What it is called there.
        command: Script and arguments, relative to the repository.
    """

    def __init__(self, folder: Path, name: str, *command: object) -> None:
        self.log = folder / f"{name.replace(' ', '_')}.log"
        script, *rest = map(str, command)
        place = ROOT / ("linear_probing" if script == "probe.py" else "RetFiner")
        start = ["-m", script] if not script.endswith(".py") else [script]
        threads = {"OMP_NUM_THREADS": "2"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *start, *rest], cwd=place, stdout=log, stderr=log,
                env=os.environ | threads,
            )  # fmt: skip
        self.begun = time.perf_counter()

    def wait(self, about: dict[str, Any], status: int = 0) -> str:
        """Wait for its end and return what it printed.

        Raises:
            RuntimeError: If it ended with another status.
        """
        found = self.process.wait()
        about["seconds"] = round(time.perf_counter() - self.begun, 1)
        said = self.log.read_text(errors="replace")
        if found != status:
            raise RuntimeError(f"status {found}, expected {status}: {said[-1200:]}")
        return said


def train(folder: Path, name: str, device: str, *extra: object) -> Script:
    """Start a run whose folder lies in ``<folder>/<name>``."""
    made = folder / "made"
    accelerator = "gpu" if device == "cuda" else "cpu"
    return Script(
        folder, name, "train.py", "--model_weights", made / "base.pth",
        "--text_encoder", made / "bert", "--train_csv", made / "phantoms" / "pairs.csv",
        "--output_dir", folder / name, "--batch_size", 16, "--lr", 1e-3, "--exponential_temp",
        "--num_workers", 1, "--checkpoint_every_n_steps", 2, "--accelerator", accelerator,
        *([] if "--max_epochs" in extra else ["--max_epochs", 3]), *extra,
    )  # fmt: skip


def run_folder(parent: Path) -> Path:
    (folder,) = (path for path in parent.iterdir() if path.is_dir())
    return folder


def last_losses(parent: Path) -> dict[str, float]:
    """Read what the last row of metrics.csv says of losses and waiting."""
    with (run_folder(parent) / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {k: float(v) for k, v in rows[-1].items() if v and re.search("loss|wait|guard", k)}
    if not found or not all(map(math.isfinite, found.values())):
        raise ValueError(f"metrics.csv says {rows[-1]}")
    return found


def prepare(items: Items, folder: Path, device: str) -> None:
    """Make phantoms, base model and text encoder."""
    made = folder / "made"
    with items.item("phantoms") as about:
        Script(
            folder, "phantoms", "retfiner.data.phantoms", "--output", made / "phantoms",
            "--patients", 40, "--train", 24, "--val", 12, "--test", 24,
        ).wait(about)  # fmt: skip
    with items.item("pretrain_base.py and build_text_encoder.py") as about:
        vit = Script(
            folder, "vit", "pretrain_base.py", "--images", made / "phantoms" / "images",
            "--output", made / "base.pth", "--image_size", 64, "--patch_size", 8, "--width", 64,
            "--depth", 3, "--epochs", 1,
        )  # fmt: skip
        bert = Script(
            folder, "bert", "build_text_encoder.py", "--from_reports",
            made / "phantoms" / "pairs.csv", "--output", made / "bert", "--layers", 2,
            "--width", 64,
        )  # fmt: skip
        bert.wait(about)
        vit.wait(about)


def differences(one: Any, two: Any, place: str = "") -> list[str]:
    """List the places where two checkpoints differ; paths and wall-clock times do not count."""
    if isinstance(one, dict) and isinstance(two, dict):
        if set(one) != set(two):
            return [f"{place}: keys"]
        return [d for key in one for d in differences(one[key], two[key], f"{place}/{key}")]
    if isinstance(one, list | tuple) and isinstance(two, list | tuple) and len(one) == len(two):
        pairs = enumerate(zip(one, two, strict=True))
        return [d for key, (a, b) in pairs for d in differences(a, b, f"{place}/{key}")]
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, two) else [place]
    return [] if one == two else [place]


def resumed(items: Items, folder: Path, device: str) -> None:
    """Kill one run after a checkpoint, tell another to stop, go on with both."""
    killed = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}
    extra = [*DETERMINISTIC, "--resume", "auto"]
    whole = train(folder, "deterministic", device, *DETERMINISTIC)
    first = {name: train(folder, name, device, *extra) for name in killed}
    again: dict[str, Script] = {}
    for name, number in killed.items():
        with items.item(f"interrupted by {name}") as about:
            while not list((folder / name).glob("*/last.ckpt")):
                if first[name].process.poll() is not None:
                    raise RuntimeError(first[name].log.read_text()[-1200:])
                time.sleep(0.05)
            first[name].process.send_signal(number)
            status = -number if name == "SIGKILL" else 128 + number
            first[name].wait(about, status)
            again[name] = train(folder, name, device, *extra)
    with items.item("deterministic") as about:
        whole.wait(about)
        about.update(last_losses(folder / "deterministic"))
    for name in killed:
        with items.item(f"resumed after {name}, to the bit") as about:
            again[name].wait(about)
            ends = [run_folder(folder / kind) for kind in ("deterministic", name)]
            rows = [(end / "metrics.csv").read_bytes() for end in ends]
            for file in ("best-model.ckpt", "last.ckpt"):
                content = [torch.load(end / file, weights_only=True) for end in ends]
                for part in ("state_dict", "optimizer_states", "lr_schedulers"):
                    found = differences(content[0].get(part), content[1].get(part), part)
                    if found:
                        raise ValueError(f"{file} differs in {len(found)} places: {found[:3]}")
            if rows[0] != rows[1]:
                raise ValueError("metrics.csv differs")


def downstream(items: Items, folder: Path, device: str) -> None:
    """Extract, probe, retrieve and write reports."""
    made, refined = folder / "made", folder / "refined.pth"
    model = run_folder(folder / "bf16-mixed") / "best-model.ckpt"
    with items.item("extraction") as about:
        Script(
            folder, "extract", "get_vision_backbone_for_linprobing.py", "--path_to_model", model,
            "--output", refined,
        ).wait(about)  # fmt: skip
    evaluate = ("evaluate.py", "--model", model, "--data", made / "phantoms" / "pairs.csv",
                "--device", device, "--num_workers", 1)  # fmt: skip
    scripts = {
        "probing": Script(
            folder, "probe", "probe.py", "--weights", f"base={made / 'base.pth'}",
            f"refined={refined}", "--data_root", made / "phantoms" / "tasks", "--results",
            folder / "results", "--feature_store", folder / "features", "--device", device,
            "--seed", 0, 1, "--epochs", 60,
        ),
        "retrieval": Script(
            folder, "retrieval", *evaluate, "--task", "retrieval", "--bootstrap", 50
        ),
        **{
            f"reports by {kind}": Script(
                folder, f"report_{kind}", *evaluate, "--task", "report", "--decode", kind
            )
            for kind in ("greedy", "beam", "nucleus")
        },
    }  # fmt: skip
    for name, script in scripts.items():
        with items.item(name) as about:
            script.wait(about)


def runs(items: Items, device: str, output: Path) -> None:
    """Run the scripts."""
    folder = output / "runs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    prepare(items, folder, device)
    # A rehearsal leaves out what few cores would take minutes for.
    chosen = RUNS if device == "cuda" else {"bf16-mixed": RUNS["bf16-mixed"]}
    started = {name: train(folder, name, device, *extra) for name, extra in chosen.items()}
    if device == "cuda":
        resumed(items, folder, device)
    for name in [name for name in started if name != "compiled"]:
        with items.item(name) as about:
            said = started[name].wait(about)
            about.update(last_losses(folder / name))
            about["notes"] = [
                line for line in said.splitlines() if "waited" in line or "guard" in line
            ][:6]
    downstream(items, folder, device)
    if device != "cuda":
        resumed(items, folder, device)
        return
    with items.item("compiled") as about:
        started["compiled"].wait(about)
        about.update(last_losses(folder / "compiled"))
    with items.item("the guard, and waiting for images, of a run alone") as about:
        alone = train(folder, "alone", device, "--monitor", "guard", "--image_cache")
        said = alone.wait(about)
        about.update(last_losses(folder / "alone"))
        about["notes"] = [
            line for line in said.splitlines() if "waited" in line or "guard" in line
        ][:6]


if __name__ == "__main__":
    run_section("runs", runs)
