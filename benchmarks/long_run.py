"""Memory over a long load: training, extraction of features, probing.

    python benchmarks/long_run.py --output benchmarks/long_run.png

Small models and images, but as many steps, epochs, checkpoints and files opened as a long run has:
by default 10,000 optimiser steps in 100 epochs (two hours at 0.7 s a step), 600,000 images through
the encoder, and 2,000 probed heads. Memory of the process and of its workers is noted all along;
the slope is that of a line through the second half.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from probe_sweep import write_data_sets, write_model
from transformers import BertConfig

from linprobe.config import ProbeConfig
from linprobe.probing import run_sweep
from retfiner.common.cli import flag, parse
from retfiner.common.errors import run_entry_point
from retfiner.config import RefineConfig
from retfiner.refine import refine
from retfiner.text.encoder import CrossAttentionBert
from retfiner.text.tokenizer import train_tokenizer

FINDINGS = ("drusen", "subretinal fluid", "a macular hole", "an epiretinal membrane", "no fluid")
BATCH = 8


@dataclass(frozen=True)
class LongRunConfig:
    """Settings of the benchmark."""

    steps: int = flag("optimiser steps of training", 10_000)
    epochs: int = flag("epochs they are spread over", 100)
    rounds: int = flag("times that features are extracted and heads are probed anew", 200)
    num_workers: int = flag("processes that read images", 1)
    output: Path = flag("figure to write", Path("long_run.png"))


class MemoryWatch:
    """Notes resident memory in MB of this process and its children, twice a second."""

    def __init__(self) -> None:
        self.samples: dict[str, list[tuple[float, float]]] = {}
        self._part, self._stop = "", threading.Event()

    def run(self, part: str, work: Callable[[], object]) -> None:
        """Do a part of the load and watch."""
        self._part, self._stop = part, threading.Event()
        self.samples[part] = []
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            work()
        finally:
            self._stop.set()
            thread.join()

    def _watch(self) -> None:
        start = time.perf_counter()
        while not self._stop.wait(0.5):
            self.samples[self._part].append((time.perf_counter() - start, memory_mb()))


def memory_mb() -> float:
    """Anonymous memory of this process and its children, pages that a fork shares counted once.

    Files that are mapped (libraries) do not count: others that map them too would change the share.
    """
    total = 0.0
    for folder in [Path("/proc/self"), *(Path(f"/proc/{pid}") for pid in children())]:
        try:
            lines = (folder / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it ended
        total += next(float(x.split()[1]) for x in lines if x.startswith("Pss_Anon:")) / 1000
    return total


def children() -> list[str]:
    """Return the processes that this one's threads have started; a thread may end meanwhile."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += (task / "children").read_text().split()
    return found


def write_pairs(folder: Path, pairs: int) -> Path:
    rng = np.random.default_rng(0)
    rows = ["image,report,patient_id"]
    for index in range(pairs):
        pixels = rng.integers(0, 256, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        rows.append(f"{index}.png,B-scan with {FINDINGS[index % 5]} no {index % 97},p{index}")
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "pairs.csv"


def write_text_encoder(folder: Path) -> Path:
    tokenizer = train_tokenizer(
        [f"B-scan with {f} no {n}" for f in FINDINGS for n in range(97)], 300
    )
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=128,
        max_position_embeddings=40,
        is_decoder=True,
        add_cross_attention=True,
    )
    CrossAttentionBert(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train(config: LongRunConfig, root: Path) -> None:
    batches = max(1, config.steps // config.epochs)
    (root / "pairs").mkdir()
    refine(
        RefineConfig(
            model_weights=root / "model.pth",
            train_csv=write_pairs(root / "pairs", round(batches * BATCH / 0.9)),
            text_encoder=write_text_encoder(root / "bert"),
            batch_size=BATCH,
            max_epochs=config.epochs,
            patience=config.epochs,
            num_workers=config.num_workers,
            precision="32-true",
            accelerator="cpu",
            output_dir=root / "models",
        )
    )


def probe(config: LongRunConfig, root: Path, new_features: bool) -> None:
    write_data_sets(root / "data", 0.02)
    settings = ProbeConfig(
        init_weights=root / "model.pth",
        data_root=root / "data",
        results=root / "results",
        feature_store=root / "features",
        data_set=["OCTDL", "Duke_iAMD"],
        device="cpu",
        num_workers=0,
    )
    seeds = [0] if new_features else list(range(5))
    for number in range(config.rounds):
        # Another store: everything is extracted again. Another folder: everything is probed again.
        store = root / f"features{number}" if new_features else settings.feature_store
        results = root / f"results{new_features}{number}"
        run_sweep(replace(settings, results=results, feature_store=store, seed=seeds))


def draw(samples: dict[str, list[tuple[float, float]]], output: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(samples), figsize=(4 * len(samples), 3), layout="constrained"
    )
    for axis, (part, points) in zip(axes, samples.items(), strict=True):
        x, y = np.array(points).T
        axis.plot(x / 60, y, color="#0072b2", linewidth=1)
        axis.set(title=part, xlabel="minutes", ylim=(0, 1.08 * y.max()))
    axes[0].set_ylabel("memory (MB), workers included")
    figure.savefig(output, dpi=130)


def main() -> None:
    """Run the load, print the slopes, draw."""
    config = parse(LongRunConfig, "Memory over a long load.")
    torch.set_num_threads(1)
    watch = MemoryWatch()
    with TemporaryDirectory() as name:
        root = Path(name)
        write_model(root / "model.pth", 64, 2)
        watch.run("training", lambda: train(config, root))
        watch.run("features", lambda: probe(config, root, new_features=True))
        watch.run("probing", lambda: probe(config, root, new_features=False))
    print(f"{'':<10}{'minutes':>9}{'first MB':>10}{'last MB':>9}{'most MB':>9}{'MB an hour':>12}")
    for part, points in watch.samples.items():
        x, y = np.array(points).T
        late = x > x[-1] / 2
        slope = np.polyfit(x[late], y[late], 1)[0] * 3600
        first = np.median(y[len(y) // 10 : len(y) // 5 + 1])
        print(f"{part:<10}{x[-1] / 60:>9.1f}{first:>10.0f}{np.median(y[late][-9:]):>9.0f}"
              f"{y.max():>9.0f}{slope:>12.1f}")  # fmt: skip
    draw(watch.samples, config.output)


if __name__ == "__main__":
    run_entry_point(main)
