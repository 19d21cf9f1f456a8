"""How a step grows with batch, image, report and exam, an epoch with ranks, start-up with the CSV.

    python benchmarks/growth.py --output benchmarks/growth.png

Each point is a process of its own. Steps are those of ``train_step.py``. An epoch is one of
``train.py`` over the same phantoms, eight pairs a step and rank, by the processor's time of all
ranks together: flat where ranks cost nothing. Start-up is what happens to a CSV before training:
read, check every row and its image, split by patient.
"""

from __future__ import annotations

import json
import os
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
SCRIPTS = HERE.parent / "RetFiner"
SMALL = ("--backbone", "vit_tiny", "--text_layers", "4", "--text_width", "192")
FULL = ("--backbone", "vit_base")
AXES = {
    "batch_size": ("pairs in a batch", (4, 8, 16, 32)),
    "image_size": ("image side (pixels)", (112, 160, 224, 320)),
    "report_tokens": ("WordPieces in a report", (6, 12, 18, 24)),
    "exam_images": ("B-scans in an exam", (1, 2, 4, 8)),
}
RANKS = (1, 2, 4)
EPOCHS = (1, 4)
"""A run's epochs in turn: what they differ by is neither start nor end."""

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
        ways = json.loads(found.read_text())["ways"]
    ours = ways[f"exams of {value}" if axis == "exam_images" else "ours"]
    # On a CPU its own time: what else runs on the machine changes it little.
    seconds = ours["cpu_seconds" if config.device == "cpu" else "seconds"]
    return seconds, ours["peak_memory_gb"]


def run(*command: object) -> resource.struct_rusage:
    """Run a command and return what it and its own processes used."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)], env=environment, stdout=log, stderr=log
        )
        _, status, used = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            raise RuntimeError(log.read().decode(errors="replace")[-1200:])
    return used


def measure_ranks() -> list[tuple[float, float, float]]:
    """Give ranks, the processor's seconds of an epoch over all of them, and the largest's GB."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        run("-m", "retfiner.data.phantoms", "--output", made, "--patients", 60, "--train", 24,
            "--val", 12, "--test", 24)  # fmt: skip
        run(SCRIPTS / "pretrain_base.py", "--images", made / "images", "--output",
            made / "base.pth", "--image_size", 64, "--epochs", 1)  # fmt: skip
        run(SCRIPTS / "build_text_encoder.py", "--from_reports", made / "pairs.csv", "--output",
            made / "bert", "--layers", 4, "--width", 192, "--epochs", 1)  # fmt: skip
        for ranks in RANKS:
            used = [
                # torchrun waits for its processes, so that the system counts what they used.
                run("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", ranks,
                    SCRIPTS / "train.py", "--model_weights", made / "base.pth", "--text_encoder",
                    made / "bert", "--train_csv", made / "pairs.csv", "--output_dir",
                    made / f"{ranks}_{epochs}", "--batch_size", 8, "--max_epochs", epochs,
                    "--accelerator", "cpu", "--precision", "32-true", "--num_workers", 0)
                for epochs in EPOCHS
            ]  # fmt: skip
            seconds = [u.ru_utime + u.ru_stime for u in used]
            each = (seconds[1] - seconds[0]) / (EPOCHS[1] - EPOCHS[0])
            found.append((ranks, each, used[1].ru_maxrss / 1e6))
    return found


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

    figure, axes = plt.subplots(2, len(found), figsize=(16, 5), layout="constrained")
    titles = {axis: title for axis, (title, _) in AXES.items()}
    titles |= {"ranks": "ranks", "rows": "rows in the CSV"}
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
    axes[0, -2].set_title("An epoch", loc="left")
    axes[0, -1].set_title("Start-up", loc="left")
    figure.savefig(output, dpi=150)


def say(axis: str, points: list[tuple[float, float, float]]) -> None:
    for value, seconds, memory in points:
        print(f"{axis:<14}{value:>9}{seconds:>10.3f} s{memory:>9.3f} GB", flush=True)


def main() -> None:
    """Measure, print and draw."""
    config = parse(GrowthConfig, "How cost grows.")
    if config.rows is not None:
        start_up(config.rows)
        return
    found: dict[str, list[tuple[float, float, float]]] = {}
    for axis, (_, values) in AXES.items():
        found[axis] = [(value, *measure_step(config, axis, value)) for value in values]
        say(axis, found[axis])
    found["ranks"] = measure_ranks()
    say("ranks", found["ranks"])
    found["rows"] = [(rows, *measure_start(rows)) for rows in ROWS]
    say("rows", found["rows"])
    draw(found, config.output)


if __name__ == "__main__":
    run_entry_point(main)
