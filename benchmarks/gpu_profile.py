"""Where a ViT-L step of 128 pairs spends a GPU's time, how long it idles, and who waits for it."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from gpu_items import Items, run_section
from gpu_measure import Bench, config_of
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from train_step import Stepper, synchronise

TOP = 25


def busy_share(events: Any, seconds: float) -> float:
    """Give the share of so many seconds in which at least one kernel ran."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    )
    busy, reached = 0.0, float("-inf")
    for begin, end in spans:
        busy += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return busy / 1e6 / seconds


def profiled(items: Items, name: str, way: Stepper, output: Path) -> None:
    """Profile one step and write its tables."""
    device = way.device
    with items.item(f"profile of {name}") as about:
        for number in range(3):
            way.measure(number)
        about["step without profiler"] = way.seconds[-1]
        batch = way.batch(3)
        synchronise(device)
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        with profile(activities=activities) as profiler:
            way.step(3, batch)
            synchronise(device)
        means = profiler.key_averages()
        orders = {"cpu": "self_cpu_time_total"}
        if device.type == "cuda":
            orders["kernels"] = "self_device_time_total"
            # Of a step without the profiler, which slows the CPU and not the kernels.
            about["busy share"] = busy_share(profiler.events(), way.seconds[-1])
            about["idle share"] = 1 - about["busy share"]
        for kind, order in orders.items():
            file = output / f"profile_{name.replace(' ', '_')}_{kind}.txt"
            file.write_text(means.table(sort_by=order, row_limit=TOP, max_name_column_width=90))
            there = DeviceType.CUDA if kind == "kernels" else DeviceType.CPU
            own = [one for one in means if one.device_type == there]
            best = sorted(own, key=lambda one, order=order: -getattr(one, order))[:TOP]
            about[f"top {kind}"] = [
                [one.key[:120], one.count, getattr(one, order) / 1e3] for one in best
            ]
            for key, count, milliseconds in about[f"top {kind}"]:
                print(f"  {milliseconds:>9.2f} ms {count:>6}  {key[:90]}")


def waits(items: Items, name: str, way: Stepper) -> None:
    """Count where a step makes the CPU wait for the GPU, by the line that asks."""
    with items.item(f"waits of {name}") as about:
        batch = way.batch(4)
        synchronise(way.device)
        if way.device.type != "cuda":
            about["waits"] = 0
            return
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            way.step(4, batch)
            torch.cuda.set_sync_debug_mode("default")
        found = Counter(
            f"{Path(one.filename).name}:{one.lineno}"
            for one in seen
            if "synchroniz" in str(one.message)
        )
        about["waits"] = sum(found.values())
        about["lines"] = dict(found.most_common(20))
        print(f"  {about['lines']}")


def profiles(items: Items, device: str, output: Path) -> None:
    """Profile ours and the published way."""
    torch.set_float32_matmul_precision("high")
    bench = Bench(device, "vit_large", 1.0)
    config = config_of(device, "vit_large", 128)
    for name, way in {"ours": bench.way(config), "published": bench.way(config, True)}.items():
        profiled(items, name, way, output)
        waits(items, name, way)


if __name__ == "__main__":
    run_section("profile", profiles)
