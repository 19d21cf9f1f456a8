"""Seconds, share of the matrix peak and memory of a step beside the published way, on a GPU.

Batches that do not fit are said. Every way takes its steps in turns with the others, over the same
weights; ``train_step.py`` is what does the measuring.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch
from gpu_items import Items, run_section
from levers import Lever, changes_of
from train_step import (
    BenchmarkConfig,
    Stepper,
    build_model,
    count_flops,
    matrix_peak,
    naive_losses,
    take_turns,
)

from retfiner.model import RetFiner
from retfiner.training.adaptation import checkpoint_activations

REHEARSED = {"image_size": 64, "text_layers": 2, "text_width": 192}
"""Sizes of a rehearsal on a CPU."""


def config_of(device: str, backbone: str, batch_size: int) -> BenchmarkConfig:
    """Say what is measured: as asked on a GPU, small on a CPU."""
    on_gpu = device == "cuda"
    config = BenchmarkConfig(
        backbone=backbone if on_gpu else "vit_tiny",
        batch_size=batch_size if on_gpu else max(2, batch_size // 32),
        precision="bf16-mixed" if on_gpu else "32-true",
        device=device,
        steps=3 if on_gpu else 1,
        warmup=2 if on_gpu else 1,
    )
    return config if on_gpu else replace(config, **REHEARSED)


class Bench:
    """A model, its two optimisers and the peak of this device."""

    def __init__(self, device: str, backbone: str, peak: float) -> None:
        self.device, self.backbone, self.peak = device, backbone, peak
        torch.manual_seed(0)
        self.model: RetFiner = build_model(config_of(device, backbone, 32))
        trained = list(self.model.parameters())
        self.fused = torch.optim.AdamW(trained, lr=1e-6, fused=True)
        self.plain = torch.optim.AdamW(trained, lr=1e-6)

    def way(self, config: BenchmarkConfig, naive: bool = False, **extra: Any) -> Stepper:
        """Make a way of taking steps."""
        optimizer = self.plain if naive or extra.get("lacks") == "fused_adamw" else self.fused
        losses = {"losses_of": naive_losses} if naive else {}
        return Stepper(config, self.model, optimizer, **losses, **extra)

    def measure(self, about: dict[str, Any], ways: dict[str, Stepper]) -> None:
        """Let ways take turns; one that runs out of memory is left out and said so."""
        about["ways"] = {}
        shared = next(iter(ways.values())).batch(0)  # drawing one takes longer than a step
        for way in ways.values():
            way.batch = lambda _: shared
        unfit = take_turns(ways, [self.fused, self.plain])
        for name, way in ways.items():
            about["ways"][name] = {"fits": name not in unfit}
            if name not in unfit:
                # torch cannot count within compiled code.
                flops = 0.0 if name == "compiled" else count_flops(way)
                about["ways"][name] |= way.summary(flops, self.peak)
        for name, found in about["ways"].items():
            about[name] = said(found)


def said(found: dict[str, Any]) -> str:
    """Sum up a way in a few figures."""
    if not found["fits"]:
        return "does not fit"
    share = f" ({100 * found['share_of_peak']:.0f} % of the peak)" if found["tera_flop"] else ""
    return f"{found['seconds']:.3f} s{share}, {found['peak_memory_gb']:.1f} GB"


def table(items: Items, bench: Bench, batches: tuple[int, ...]) -> None:
    """Measure ours beside the published way, by batch size."""
    for batch_size in batches:
        with items.item(f"{bench.backbone}, batch {batch_size}") as about:
            config = config_of(bench.device, bench.backbone, batch_size)
            ways = {"ours": bench.way(config), "published": bench.way(config, naive=True)}
            bench.measure(about, ways)
            both = [about["ways"][name] for name in ways]
            if all(way["fits"] for way in both):
                about["times faster"] = both[1]["seconds"] / both[0]["seconds"]


def levers(items: Items, bench: Bench) -> None:
    """Measure what each lever is worth, and what costs time to save memory."""
    config = config_of(bench.device, bench.backbone, 128)
    with items.item(f"{bench.backbone}, batch {config.batch_size}, levers") as about:
        ways = {"ours": bench.way(config)}
        ways |= {f"without {lever}": bench.way(config, lacks=lever) for lever in get_args(Lever)}
        extra = changes_of(partial(checkpoint_activations, bench.model), bench.model)
        ways["checkpointing"] = bench.way(config, extra=extra)
        quarter = config.batch_size // 4
        ways["in four chunks"] = bench.way(config, extra=[(bench.model, "chunk_size", quarter)])
        bench.measure(about, ways)
    with items.item(f"{bench.backbone}, batch {config.batch_size}, 16-mixed") as about:
        half = replace(config, precision="16-mixed") if bench.device == "cuda" else config
        bench.measure(about, {"ours": bench.way(half), "published": bench.way(half, naive=True)})
    with items.item(f"{bench.backbone}, batch {config.batch_size}, compiled") as about:
        extra = changes_of(bench.model.compile_encoders, bench.model)
        ways = {"ours": bench.way(config), "compiled": bench.way(config, extra=extra)}
        bench.measure(about, ways)


def measure(items: Items, device: str, _: Path) -> None:
    """Measure everything."""
    torch.set_float32_matmul_precision("high")
    there = torch.device(device)
    with items.item("peak of a matrix product") as about:
        peak = matrix_peak(there, config_of(device, "vit_base", 32).precision)
        about["TFLOP/s"] = peak / 1e12
        about["name"] = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    table(items, Bench(device, "vit_base", peak), (128, 32, 64, 256))
    gc.collect()  # the larger one is to have all the memory
    large = Bench(device, "vit_large", peak)
    table(items, large, (128, 32, 64, 256))
    levers(items, large)


if __name__ == "__main__":
    run_section("measure", measure)
