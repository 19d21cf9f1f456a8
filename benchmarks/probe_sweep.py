"""Speed of a probing sweep from stored features against one backbone pass per image per epoch.

    python benchmarks/probe_sweep.py
    python benchmarks/probe_sweep.py --growth    # how cost grows with images and with seeds

Nine data sets are generated with the sizes of the published ones, and a small ViT is probed on
all of them with five seeds. The other way (``--online_augmentation``) is measured on a sample and
multiplied by the passes it needs at the epochs early stopping asks for. Both are CPU time, which
other work on the machine changes little. On the data sets named by ``--online`` it is really run,
so that balanced accuracies can be laid side by side.

Measured on one thread of a two-core CPU, with the defaults: 86,679 passes in 72 s from stored
features, against 8,246,160 passes of 0.90 ms, 7,402 s: a factor of 95 in passes and of 102 in time.

How many views are enough depends on how much augmentation moves the features beside what separates
the classes. On 161 real B-scans of four classes (DINOv2 ViT-S at 84 pixels, twelve splits by
patient, five seeds), balanced accuracy differs from that with 32 views by -4 points with 2 views,
-2 with 4, and by about -0.6, within the noise of one point, with 8 and 16. On generated sets with a
random ViT, a harder case, 20 seeds against 48 views: -1.8 points with 15 views and +0.4 with 29 for
286 images of five classes, 0.0 with 17 for 500 images of two; and, 10 seeds against 24 views, -2.2
with 8 for 1,032 images of seven overlapping classes. With 8,411 images of three classes, five
seeds, 2 views do as well as 16 (79.1 against 77.0 ± 3.2). On four tasks of generated B-scans with a
trained backbone, the mean is 49.1 with a fresh augmentation each epoch, and 49.2 to 50.2 with 4 to
64 views. The default, at most 8, is chosen from these: with trained backbones more change nothing
beyond noise, and 150 images cost 675 passes of the encoder instead of 4,875. ``--views`` buys
closeness with passes where a backbone is untrained or classes overlap, and
``--online_augmentation`` is there where it matters. Five seeds on a data set of a hundred images
say little: their standard deviation is three to nine points.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from linprobe.config import ProbeConfig
from linprobe.datasets import read_data_set
from linprobe.probing import Sweep, run_sweep
from linprobe.task import ProbingTask
from linprobe.weights import candidates
from retfiner.common.cli import flag, parse
from retfiner.common.errors import run_entry_point
from retfiner.common.predictions import find_runs, read_about

SIZES = {
    "Duke_iAMD": (384, 2),
    "GAMMAv2": (100, 3),
    "Harvard_Glaucoma": (1000, 2),
    "NEHUT2D": (16822, 3),
    "Noor_Eye_Hospital": (148, 3),
    "OCTDL": (2064, 7),
    "OCTID": (572, 5),
    "9C2D": (1000, 9),  # the last two are in-house: their sizes are not published
    "POAGD2D": (1000, 2),
}
"""Images and classes of the data sets that the published scripts name."""
SHARES = {"train": 0.5, "val": 0.25, "test": 0.25}
SIDE, PATCH = 32, 8


@dataclass(frozen=True)
class BenchmarkConfig:
    """Settings of the benchmark."""

    scale: float = flag("images of each data set as a share of the published number", 1.0)
    width: int = flag("width of the ViT, 64 a head", 64)
    depth: int = flag("blocks of the ViT", 2)
    online: list[str] = flag("data sets on which the slow way is really run", ["GAMMAv2"])
    views: int | None = flag("stored views; by default as probe.py has it", None)
    threads: int = flag("threads of the encoder", 1)
    growth: bool = flag(
        "measure instead one data set of growing size, with more and more seeds", False
    )


def draw_image(label: int, rng: np.random.Generator) -> np.ndarray:
    """Draw layers and a bright spot; how dense and how wide they are tells the class."""
    y, x = np.mgrid[0:40, 0:40] / 40.0
    density, size = (level + rng.normal(0, 0.3) for level in (label % 3, label // 3 % 3))
    tilt, phase = rng.normal(0, 0.1), rng.uniform()
    layers = 0.35 + 0.2 * np.sin(2 * np.pi * ((2 + 2.5 * density) * (y + tilt * x) + phase))
    width = 0.06 + 0.07 * max(0.0, size)
    centre_y, centre_x = rng.uniform(0.3, 0.7, 2)
    spot = np.exp(-((y - centre_y) ** 2 + (x - centre_x) ** 2) / (2 * width**2))
    noisy = layers + 0.5 * spot + rng.normal(0, 0.08, y.shape)
    return (255 * noisy.clip(0, 1)).astype(np.uint8)


def write_data_sets(root: Path, scale: float) -> None:
    for order, (name, (images, n_classes)) in enumerate(SIZES.items()):
        write_data_set(root / name, round(images * scale), n_classes, np.random.default_rng(order))


def write_data_set(root: Path, images: int, n_classes: int, rng: np.random.Generator) -> None:
    for split, share in SHARES.items():
        for index in range(max(n_classes * 4, round(images * share))):
            label = index % n_classes
            folder = root / split / f"class_{label}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = draw_image(label, rng)
            Image.fromarray(pixels).save(folder / f"{index:05d}.png", compress_level=1)


def write_model(path: Path, width: int, depth: int) -> None:
    heads = max(1, width // 64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = VisionTransformer(
            img_size=SIDE,
            patch_size=PATCH,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            num_classes=0,
            global_pool="",
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
    about = {"backbone": "RETFound", "image_size": SIDE, "num_heads": heads, "provenance": {}}
    torch.save({"model": encoder.state_dict(), "retfiner": about}, path)


def seconds_an_image(config: ProbeConfig, name: str, most: int = 400) -> float:
    """Measure a pass of the slow way, read, augment, encode one image, in CPU time."""
    sweep = Sweep(config, candidates(config)[0])
    task = ProbingTask(read_data_set(config.data_root / name), sweep.extractor, config)
    rows = np.arange(min(most, len(task.data.splits["train"])))
    task.fresh(rows, 0, 0)  # the first pass pays for what is set up once
    start = time.process_time()
    task.fresh(rows, 0, 1)
    return (time.process_time() - start) / len(rows)


def main() -> None:
    """Run the benchmark and print what came out."""
    chosen = parse(BenchmarkConfig, "Stored features against one pass per image per epoch.")
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_model(root / "model.pth", chosen.width, chosen.depth)
        if chosen.growth:
            grow(chosen, root)
            return
        write_data_sets(root / "data", chosen.scale)
        compare(chosen, root)


def compare(chosen: BenchmarkConfig, root: Path) -> None:
    config = ProbeConfig(
        init_weights=root / "model.pth",
        data_root=root / "data",
        results=root / "stored",
        feature_store=root / "features",
        device="cpu",
        views=chosen.views,
        num_workers=0,  # CPU time is that of this process
    )
    start, begun = time.perf_counter(), time.process_time()
    _, summaries = run_sweep(config)
    took, spent = time.perf_counter() - start, time.process_time() - begun
    runs = [read_about(path) for path in find_runs(config.results)]
    slow = dataclasses.replace(
        config, online_augmentation=True, views=None, results=root / "online"
    )
    per_image = seconds_an_image(slow, "Harvard_Glaucoma")
    print(f"{os.cpu_count()} cores, {chosen.threads} threads; {1000 * per_image:.2f} ms a pass")
    print(f"{'data set':<18} {'train':>6} {'views':>5} {'epochs':>6} {'stored':>15}")
    passes = 0
    for summary in summaries:
        mine = [run["context"] for run in runs if run["data_set"] == summary.data_set]
        images = mine[0]["images"]
        epochs = [context["epochs_trained"] for context in mine]
        passes += sum(epochs) * (images["train"] + images["val"]) + len(mine) * images["test"]
        scores = 100 * np.array(summary.scores)
        print(
            f"{summary.data_set:<18} {images['train']:>6} {mine[0]['views']:>5} "
            f"{np.mean(epochs):>6.0f} {scores.mean():>7.2f} ± {scores.std(ddof=1):<5.2f}"
        )
    stored = sum(path.stat().st_size for path in config.feature_store.iterdir())
    few = stored // (4 * 2 * chosen.width)  # float32, twice the width
    print(f"stored features: {few} passes, {spent:.1f} s of CPU time, {took:.1f} s by the clock")
    print(f"a pass per image per epoch: {passes} passes, {passes * per_image:.0f} s of CPU time")
    print(f"factor: {passes / few:.0f} in passes, {passes * per_image / spent:.0f} in time")
    for name in chosen.online:
        run_online(dataclasses.replace(slow, data_set=[name]), summaries)


def grow(chosen: BenchmarkConfig, root: Path) -> None:
    """Print CPU time against images (from nothing) and against seeds (from stored features)."""
    print("CPU seconds: features with a first head, then heads of 5 and of 20 seeds more")
    print(f"{'images':>7} {'features':>9} {'5 seeds':>8} {'20 seeds':>9}")
    for images in (1000, 2000, 4000, 8000, 16000):
        name = f"of_{images}"
        write_data_set(root / "data" / name, images, 3, np.random.default_rng(0))
        config = ProbeConfig(
            init_weights=root / "model.pth",
            data_root=root / "data",
            data_set=[name],
            results=root / "results",
            feature_store=root / f"features_{images}",
            device="cpu",
            views=chosen.views or 2,
            num_workers=0,
        )
        seconds = []
        for seeds in (range(1), range(1, 6), range(6, 26)):
            begun = time.process_time()
            run_sweep(dataclasses.replace(config, seed=list(seeds)))
            seconds.append(time.process_time() - begun)
        print(f"{images:>7} {seconds[0]:>9.1f} {seconds[1]:>8.1f} {seconds[2]:>9.1f}", flush=True)


def run_online(config: ProbeConfig, summaries: list) -> None:
    start = time.perf_counter()
    _, [online] = run_sweep(config)
    [stored] = [s for s in summaries if s.data_set == online.data_set]
    gap = 100 * (np.mean(stored.scores) - np.mean(online.scores))
    print(
        f"{online.data_set}: really run online {100 * np.mean(online.scores):.2f} "
        f"in {time.perf_counter() - start:.1f} s, stored {100 * np.mean(stored.scores):.2f} "
        f"in {stored.seconds:.1f} s; difference {gap:+.2f} points"
    )


if __name__ == "__main__":
    run_entry_point(main)
