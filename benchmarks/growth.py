"""How a step grows with batch, image and report, and how start-up grows with the CSV.

    python benchmarks/growth.py --output benchmarks/growth.png

Each point is a process of its own. Steps are those of ``train_step.py``; start-up is what happens
to a CSV before training: read, check every row and its image, split by patient, tokenise.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from retfiner.common.cli import flag, parse
from retfiner.common.errors import run_entry_point
from retfiner.data.manifest import read_manifest, split_by_patient

HERE = Path(__file__).parent
SMALL = ("--backbone", "vit_tiny", "--text_layers", "4", "--text_width", "192")
FULL = ("--backbone", "vit_base")
AXES = {
    "batch_size": ("pairs in a batch", (4, 8, 16, 32)),
    "image_size": ("image side (pixels)", (112, 160, 224, 320)),
    "report_tokens": ("WordPieces in a report", (6, 12, 18, 24)),
}
ROWS = (1_000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class GrowthConfig:
    """Settings of the benchmark."""

    output: Path = flag("figure to write", Path("growth.png"))
    full: bool = flag("a ViT-B and a BERT-base in place of small ones", False)
    device: str = flag("cpu or cuda", "cpu")
    precision: str = flag("arithmetic", "32-true")
    rows: int | None = flag("measure start-up of this many rows alone, in this process", None)


def measure_step(config: GrowthConfig, axis: str, value: int) -> tuple[float, float]:
    """Give seconds and gigabytes of a step."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = [sys.executable, str(HERE / "train_step.py"), *(FULL if config.full else SMALL)]
        command += ["--device", config.device, "--precision", config.precision]
        settings = {"batch_size": "8", "image_size": "224"} | {axis: str(value)}
        for name, setting in settings.items():
            command += [f"--{name}", setting]
        subprocess.run([*command, "--output", str(found)], check=True, capture_output=True)
        ours = json.loads(found.read_text())["ways"]["ours"]
    # On a CPU its own time: what else runs on the machine changes it little.
    seconds = ours["cpu_seconds" if config.device == "cpu" else "seconds"]
    return seconds, ours["peak_memory_gb"]


def measure_start(rows: int) -> tuple[float, float]:
    """Give seconds and gigabytes of start-up, in a process of its own."""
    command = [sys.executable, __file__, "--rows", str(rows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, memory = done.stdout.split()[-2:]
    return float(seconds), float(memory)


def start_up(rows: int) -> None:
    """Read and split a CSV; every row has a report of its own, and a hundredth an image."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        images = max(1, min(rows // 100, 1000))
        pixels = np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)
        for index in range(images):
            Image.fromarray(pixels).save(root / f"{index}.png")
        with (root / "pairs.csv").open("w") as file:
            file.write("image,report,patient_id\n")
            for row in range(rows):
                file.write(f"{row % images}.png,Drusen and fluid in scan {row},p{row // 5}\n")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        split_by_patient(read_manifest(root / "pairs.csv"), 0.1, 0)
        seconds = time.perf_counter() - start
        memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    print(f"{seconds:.3f} {memory:.4f}")


def draw(found: dict[str, list[tuple[float, float, float]]], output: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(13, 5.5), layout="constrained")
    titles = {axis: title for axis, (title, _) in AXES.items()} | {"rows": "rows in the CSV"}
    for column, (axis, points) in enumerate(found.items()):
        x, seconds, memory = zip(*points, strict=True)
        for row, (values, unit) in enumerate(((seconds, "seconds"), (memory, "memory (GB)"))):
            panel = axes[row, column]
            panel.plot(x, values, "o-", color="#0072b2")
            panel.set(xlabel=titles[axis], ylabel=unit if column == 0 else "")
            if axis == "rows":
                panel.set(xscale="log", yscale="log")
            else:
                panel.set_ylim(0, 1.08 * max(values))
    axes[0, 0].set_title("A training step", loc="left")
    axes[0, 3].set_title("Start-up", loc="left")
    figure.savefig(output, dpi=150)


def main() -> None:
    """Measure, print and draw."""
    config = parse(GrowthConfig, "How cost grows.")
    if config.rows is not None:
        start_up(config.rows)
        return
    found = {
        axis: [(value, *measure_step(config, axis, value)) for value in values]
        for axis, (_, values) in AXES.items()
    }
    found["rows"] = [(rows, *measure_start(rows)) for rows in ROWS]
    for axis, points in found.items():
        for value, seconds, memory in points:
            print(f"{axis:<14}{value:>9}{seconds:>10.3f} s{memory:>9.3f} GB", flush=True)
    draw(found, config.output)


if __name__ == "__main__":
    run_entry_point(main)
