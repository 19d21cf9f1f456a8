"""B-scans a second while a data set is prepared, by number of processes, and the memory it takes.

    python benchmarks/prepare_datasets.py --images 10000

Writes B-scans of 496 x 512 pixels with white borders in Kermany's layout and prepares them. Memory
is the peak of the largest process.
"""

from __future__ import annotations

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
from retfiner.common.numbers import PositiveInt

SCRIPT = Path(__file__).parents[1] / "linear_probing" / "prepare_dataset.py"
CLASSES = ("CNV", "DME", "DRUSEN", "NORMAL")


@dataclass(frozen=True)
class BenchmarkConfig:
    """Settings of the benchmark."""

    images: PositiveInt = flag("B-scans to prepare", 2000)
    workers: list[int] = flag("numbers of processes", [1, 2])


def write_download(folder: Path, images: int) -> None:
    """Write JPEGs of layered noise, rotated, with the white corners that rotation leaves."""
    rng = np.random.default_rng(0)
    y = np.linspace(0, 12, 496)[:, None]
    layers = 90 + 60 * np.sin(y) + rng.normal(0, 20, (496, 512))
    picture = Image.fromarray(layers.clip(0, 255).astype(np.uint8)).rotate(4, fillcolor=255)
    for index in range(images):
        label = CLASSES[index % 4]
        path = folder / label / f"{label}-{1000 + index // 5}-{index % 5}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.putpixel((index % 512, 200), index % 255)  # no two files are the same
        picture.save(path, quality=90)


def main() -> None:
    """Measure and print."""
    config = parse(BenchmarkConfig, "Speed and memory of preparing a data set.")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_download(root / "download", config.images)
        print(f"{config.images} B-scans of 496 x 512 pixels")
        for workers in config.workers:
            command = [sys.executable, str(SCRIPT), "Kermany", "--source", str(root / "download")]
            command += ["--output", str(root / f"data{workers}"), "--num_workers", str(workers)]
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds = time.perf_counter() - start
            # The peak of all children so far: later rows can only repeat or exceed earlier ones.
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            print(
                f"{workers} processes: {seconds:.1f} s, {config.images / seconds:.0f} B-scans a "
                f"second, at most {peak:.0f} MB a process",
                flush=True,
            )


if __name__ == "__main__":
    run_entry_point(main)
