"""Pairs a second out of tar files, and what a long table costs before the first batch.

    python benchmarks/shards.py
    python benchmarks/shards.py --rows 1000000

The same pairs are read as loose files, out of shards, and out of shards behind a server of this
machine, in turns, in random order. Then a simulated index, each size in a process of its own: a
table of so many rows over tar files whose images are a byte long is read and checked as at the
start of a training run, and the growth a row is what lies between two sizes.
"""

from __future__ import annotations

import re
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import torch
from feed import REPORT, write_pairs
from read_images import draw_volume

from retfiner.common.cli import flag, parse
from retfiner.common.errors import run_entry_point
from retfiner.data.check.config import PreparePairsConfig
from retfiner.data.check.prepare_pairs import prepare_pairs
from retfiner.data.manifest import read_manifest
from retfiner.data.pairs import ImageCaptionDataset
from retfiner.vision import EvaluationTransform

PER_SHARD = 10_000


@dataclass(frozen=True)
class ShardsConfig:
    """Settings of the benchmark."""

    pairs: int = flag("image-report pairs", 256)
    rounds: int = flag("times that all are read each way", 5)
    rows: int = flag("rows of the larger simulated index; the other has a tenth", 100_000)
    start: int | None = flag("measure the start of this many rows alone, in this process", None)


class Ranges(SimpleHTTPRequestHandler):
    """Serves ranges of bytes, which Python's own server does not."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        content, asked = (
            path.read_bytes(),
            re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")),
        )
        part = content[int(asked[1]) : int(asked[2]) + 1] if asked else content
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


def read_all(data: ImageCaptionDataset) -> float:
    """Read all pairs in random order; give pairs a second."""
    order = np.random.default_rng(0).permutation(len(data)).tolist()
    start = time.perf_counter()
    for index in order:
        data[index]
    return len(order) / (time.perf_counter() - start)


def measure_reading(config: ShardsConfig, folder: Path) -> None:
    """Print pairs a second of each way, medians of rounds in turns."""
    table = write_pairs(folder, "png", draw_volume(config.pairs))
    prepare_pairs(PreparePairsConfig(csv=table, output=folder / "tars", shards=4, num_workers=0))
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *a: Ranges(*a, directory=str(folder / "tars"))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ways = {
        "loose files": table,
        "shards": folder / "tars" / "pairs.csv",
        "shards behind a server": Path(f"http://127.0.0.1:{server.server_address[1]}/pairs.csv"),
    }
    transform = EvaluationTransform(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    data = {way: ImageCaptionDataset(read_manifest(path), transform) for way, path in ways.items()}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(config.rounds + 1):  # the first warms disk and cache
        for way, pairs in data.items():
            rates[way].append(read_all(pairs))
    for way, found in rates.items():
        print(f"{way:<24}{statistics.median(found[1:]):>8,.0f} pairs a second, one process")
    server.shutdown()


def start_up(rows: int) -> None:
    """Read a table of so many rows over tar files, and print seconds and bytes a row."""
    with tempfile.TemporaryDirectory() as name:
        table = (Path(name) / "train.csv").open("w")
        table.write("image,report,patient_id\n")
        for shard in range(-(-rows // PER_SHARD)):
            path = Path(name) / f"train-{shard:05d}.tar"
            first = shard * PER_SHARD
            with path.open("wb") as file:
                for key in range(first, min(rows, first + PER_SHARD)):
                    member = tarfile.TarInfo(f"{key:08d}.png")
                    member.size = 1
                    file.write(member.tobuf(tarfile.USTAR_FORMAT) + bytes(512))
                    place = f"{path.name}#{member.name}@{file.tell() - 512}+1"
                    table.write(f'{place},"{REPORT.format(key)}",p{key // 4}\n')
        table.close()
        before, start = resident_gb(), time.process_time()
        manifest = read_manifest(Path(table.name))
        seconds, kept = time.process_time() - start, resident_gb() - before
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6 - before
        assert len(manifest) == rows
        print(f"{seconds:.2f} {peak:.4f} {kept:.4f}")


def resident_gb() -> float:
    """Give the memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e9


def measure_start(largest: int) -> None:
    """Print the start of two numbers of rows, and what they say of ten million."""
    for rows in (largest // 10, largest):
        command = [sys.executable, __file__, "--start", str(rows)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, peak, kept = map(float, done.stdout.split()[-3:])
        print(
            f"{rows:>10,} rows: {seconds:.1f} s, {peak:.2f} GB at most, {kept:.2f} GB kept;"
            f" 1e7 by proportion: {seconds * 1e7 / rows:,.0f} s, {peak * 1e7 / rows:.0f} GB"
        )


def main() -> None:
    """Measure and print."""
    config = parse(ShardsConfig, "Pairs a second out of tar files, and growth of the index.")
    torch.set_num_threads(1)
    if config.start is not None:
        start_up(config.start)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure_reading(config, Path(folder))
    measure_start(config.rows)


if __name__ == "__main__":
    run_entry_point(main)
