"""Do losses and gradients on a GPU agree with the CPU's float64, whatever the arithmetic and way?

One small model, evaluation mode (dropout draws differ between devices), negatives drawn alike
(which ones are drawn hangs on the last digit of the similarities).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gpu_items import Items, run_section, within
from levers import changes_of, having, without
from naive_step import NaiveStep
from torch import Tensor
from torch._functorch import config as functorch_config
from train_step import BenchmarkConfig, build_model, make_batch, to_device

from retfiner.common.seeds import generator
from retfiner.losses import LOSSES, losses_together
from retfiner.losses.itm import ImageTextMatching
from retfiner.model import Batch, RetFiner
from retfiner.text import packing
from retfiner.training.adaptation import checkpoint_activations

CONFIG = BenchmarkConfig(
    backbone="vit_tiny", image_size=64, text_layers=3, text_width=192, batch_size=12
)
BOUNDS = {
    "float64": (1e-10, 1e-8),
    "float32": (1e-5, 1e-4),
    "16-mixed": (5e-3, 3e-2),
    "bf16-mixed": (2e-2, 1.5e-1),
}
"""Largest difference of a loss as a share of it, and of a gradient as a share of its length."""


class Found(NamedTuple):
    """Losses by name, and each parameter's gradient of each loss, on the CPU in float64."""

    losses: dict[str, float]
    gradients: dict[str, dict[str, Tensor]]


def losses_of(model: RetFiner, batch: Batch, names: list[str], **kinds: Any) -> dict[str, Tensor]:
    """Give the losses as training has them."""
    losses: dict[str, Any] = {name: LOSSES[name]() for name in names}
    if "itm" in losses:
        losses["itm"] = ImageTextMatching(**kinds)
    encoded = model.encode(
        batch,
        any(loss.uses_similarity for loss in losses.values()),
        any(loss.uses_fusion for loss in losses.values()),
    )
    return losses_together(losses, model, batch, encoded, {n: generator(0, n) for n in names})


def compute(model: RetFiner, way: Callable[[], dict[str, Tensor]], scale: float = 1.0) -> Found:
    """Compute losses, and the gradient of each."""
    losses = way()
    gradients: dict[str, dict[str, Tensor]] = {}
    for number, (name, loss) in enumerate(losses.items(), 1):
        model.zero_grad(set_to_none=True)
        (loss * scale).backward(retain_graph=number < len(losses))
        gradients[name] = {
            key: p.grad.double().cpu() / scale
            for key, p in model.named_parameters()
            if p.grad is not None
        }
    return Found({name: loss.item() for name, loss in losses.items()}, gradients)


def compare(about: dict[str, Any], got: Found, expected: Found, kind: str) -> None:
    """Note the largest differences; bounds are those of the arithmetic."""
    about["loss"] = max(
        abs(got.losses[name] - value) / abs(value) for name, value in expected.losses.items()
    )
    worst, where = 0.0, ""
    for name, gradients in expected.gradients.items():
        missing = set(gradients) ^ set(got.gradients[name])
        if missing:
            raise ValueError(f"{name} trains other weights: {sorted(missing)[:4]}")
        whole = torch.cat([g.flatten() for g in gradients.values()])
        there = torch.cat([got.gradients[name][key].flatten() for key in gradients])
        difference = ((whole - there).norm() / whole.norm()).item()
        about[f"gradient of {name}"] = difference
        if not difference <= worst:
            worst, where = difference, name
    about["gradient"], about["worst"] = worst, where
    within(about, dict(zip(("loss", "gradient"), BOUNDS[kind], strict=True)))


def autocast(device: str, kind: str) -> AbstractContextManager[object]:
    types = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
    return torch.autocast(device, dtype=types[kind]) if kind in types else nullcontext()


def arithmetic(items: Items, device: str, model: RetFiner, batch: Batch) -> Found:
    """Check each loss alone and together in each arithmetic; return the device's float32."""
    reference = copy.deepcopy(model).double()
    exact = batch._replace(images=batch.images.double())
    uniform = partial(losses_of, names=CONFIG.losses, negatives="uniform")
    expected = compute(reference, lambda: uniform(reference, exact))
    there, moved = model.to(device), to_device(batch, torch.device(device))
    with items.item(f"float64, {device} against the CPU") as about:
        double = copy.deepcopy(there).double()
        found = compute(
            double, lambda: uniform(double, moved._replace(images=moved.images.double()))
        )
        compare(about, found, expected, "float64")
    plain = compute(there, lambda: uniform(there, moved))
    with items.item("float32 without TF32, the four losses") as about:
        compare(about, plain, expected, "float32")
    for name in CONFIG.losses:
        with items.item(f"float32 without TF32, {name} alone") as about:
            own = {"negatives": "uniform"} if name == "itm" else {}
            found = compute(there, partial(losses_of, there, moved, [name], **own))
            only = Found({name: expected.losses[name]}, {name: expected.gradients[name]})
            compare(about, found, only, "float32")
    for kind in ("bf16-mixed", "16-mixed"):
        with items.item(f"{kind}, the four losses") as about:

            def mixed(kind: str = kind) -> dict[str, Tensor]:
                with autocast(device, kind):
                    return uniform(there, moved)

            found = compute(there, mixed, 256.0 if kind == "16-mixed" else 1.0)
            compare(about, found, expected, kind)
    return plain


def ways(items: Items, device: str, model: RetFiner, batch: Batch, plain: Found) -> None:
    """Check what saves time or memory against the plain way on the same device."""

    def step() -> dict[str, Tensor]:
        return losses_of(model, batch, CONFIG.losses, negatives="uniform")

    for lever in ("fused_attention", "packing", "one_pass"):
        with items.item(f"without {lever}") as about:

            def lacking(lever: Any = lever) -> dict[str, Tensor]:
                with without(lever, model):
                    return step()

            compare(about, compute(model, lacking), plain, "float32")
    changes = {
        "in chunks of 5": [(model, "chunk_size", 5)],
        "packed with little padding": [(packing, "LEAST_ON_GPU", 0.0)],
        "checkpointing": changes_of(partial(checkpoint_activations, model), model),
        "compiled": changes_of(model.compile_encoders, model),
    }
    for name in ("in chunks of 5", "packed with little padding", "checkpointing"):
        with items.item(name) as about, having(changes[name]):
            compare(about, compute(model, step), plain, "float32")
    with items.item("the published way, hard negatives") as about:
        generators = {name: generator(0, name) for name in CONFIG.losses}
        published = partial(NaiveStep(model).losses, batch, CONFIG.losses, generators)
        ours = compute(model, partial(losses_of, model, batch, CONFIG.losses))
        compare(about, compute(model, published), ours, "float32")
    with items.item("checkpointing repeats dropout") as about:
        model.train()
        torch.manual_seed(3)
        expected = compute(model, step)
        with having(changes["checkpointing"]):
            torch.manual_seed(3)
            found = compute(model, step)
        model.eval()
        compare(about, found, expected, "float32")
    # The gradient of each loss alone goes through what is compiled several times.
    keeps = functorch_config.patch(donated_buffer=False)
    with items.item("compiled") as about, having(changes["compiled"]), keeps:
        compare(about, compute(model, step), plain, "float32")


def checks(items: Items, device: str, _: Path) -> None:
    """Run all checks."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    model = build_model(CONFIG).eval()
    batch = make_batch(CONFIG, 0)
    plain = arithmetic(items, device, model, batch)
    ways(items, device, model, to_device(batch, torch.device(device)), plain)


if __name__ == "__main__":
    run_section("checks", checks)
