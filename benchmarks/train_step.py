"""Seconds, memory and floating-point operations of a training step, phase by phase.

    python benchmarks/train_step.py --batch_size 16                  # ours
    python benchmarks/train_step.py --batch_size 16 --naive          # beside the published way
    python benchmarks/train_step.py --batch_size 16 --naive --profile    # and what takes the time
    python benchmarks/train_step.py --batch_size 16 --compile --gradient_checkpointing
    python benchmarks/train_step.py --batch_size 64 --chunk_size 16  # --contrast_batch 64
    python benchmarks/train_step.py --batch_size 4 --exam_images 8   # beside 4 single images
    python benchmarks/train_step.py --backbone vit_large --batch_size 128 --precision bf16-mixed \
        --device cuda --naive

All ways run in turns in one process over the same weights; seconds are medians over steps after
warm-up, memory is that of one more step: on a CPU in a process of its own, where no other way has
left holes. On a machine that others use too, the processor's time
(``OMP_NUM_THREADS=1``) is steadier than that by the clock. Operations are those of the step's
matrix products, counted by torch; the share of the peak is theirs against a large matrix product
measured in the same run.
``benchmarks/README.md`` has results.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import torch
from levers import Changes, Lever, changes_of, having, without
from measuring import Clock, give_memory_back, peak_memory
from naive_step import NaiveStep
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig

from retfiner.common.cli import flag, parse
from retfiner.common.errors import run_entry_point
from retfiner.common.numbers import NonNegativeInt, PositiveInt
from retfiner.common.seeds import generator
from retfiner.losses import LOSSES, ITMHead, losses_together
from retfiner.model import Batch, Groups, Pooling, RetFiner
from retfiner.text.encoder import CrossAttentionBert
from retfiner.training.adaptation import checkpoint_activations
from retfiner.vision import BACKBONES, Backbone
from retfiner.vision.adaptation import add_lora, unfreeze_last
from retfiner.vision.exams import marks_of

SHAPES = {
    "vit_tiny": (192, 12, 3),
    "vit_small": (384, 12, 6),
    "vit_base": (768, 12, 12),
    "vit_large": (1024, 24, 16),
}
"""Width, blocks and heads."""
KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "mkldnn_conv", "convolution_backward"),
    "attention": ("_scaled_dot_product",),
}
"""Beginnings of the names of what a profile adds up; the rest is what is neither."""
AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class BenchmarkConfig:
    """Settings of the benchmark."""

    backbone: Literal["vit_tiny", "vit_small", "vit_base", "vit_large"] = flag(
        "size of the ViT, patches of 16 pixels", "vit_base"
    )
    image_size: PositiveInt = flag("side of the image in pixels", 224)
    text_layers: PositiveInt = flag("layers of the BERT", 12)
    text_width: PositiveInt = flag("width of the BERT, 64 a head", 768)
    batch_size: PositiveInt = flag("pairs in a batch", 16)
    report_tokens: PositiveInt = flag("mean WordPieces of a report, [CLS] and [SEP] included", 12)
    losses: list[str] = flag("objectives", ["itc", "itm", "mlm", "gm"])
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = flag("arithmetic", "32-true")
    device: str = flag("cpu or cuda", "cpu")
    naive: bool = flag("measure the published way beside ours", False)
    compile: bool = flag("measure compiled encoders beside ours", False)
    gradient_checkpointing: bool = flag("measure a step that checkpoints beside ours", False)
    chunk_size: PositiveInt | None = flag(
        "measure a step that computes so many pairs at a time beside ours", None
    )
    unfreeze_last: NonNegativeInt | None = flag("vision blocks that train", None)
    lora_rank: PositiveInt | None = flag("rank of low-rank updates", None)
    without: list[Lever] = flag("measure a step beside ours that lacks a lever, for each", [])
    exam_images: PositiveInt | None = flag(
        "measure a step of as many exams of so many images beside ours", None
    )
    channels_last: bool = flag("measure a channels-last patch embedding beside ours", False)
    profile: bool = flag("say what a step of each way spends time on, by kind of operation", False)
    steps: PositiveInt = flag("measured steps", 5)
    warmup: PositiveInt = flag("steps before", 2)
    output: Path | None = flag("JSON file to write", None)


def build_model(config: BenchmarkConfig) -> RetFiner:
    width, depth, heads = SHAPES[config.backbone]
    encoder = VisionTransformer(
        img_size=config.image_size,
        patch_size=16,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        num_classes=0,
        global_pool="",
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    text = CrossAttentionBert(
        BertConfig(
            hidden_size=config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=config.text_width // 64,
            intermediate_size=4 * config.text_width,
            is_decoder=True,
            add_cross_attention=True,
        )
    )
    backbone = Backbone(BACKBONES["RETFound"], encoder, config.image_size, heads)
    pooling: Pooling | None = None if config.exam_images is None else "attention"
    model = RetFiner(backbone, text, 103, itm_head=ITMHead(config.text_width), pooling=pooling)
    if config.unfreeze_last is not None:
        unfreeze_last(encoder, config.unfreeze_last)
    if config.lora_rank is not None:
        add_lora(encoder, config.lora_rank, 2.0)
    return model.to(config.device).train()


def make_batch(config: BenchmarkConfig, step: int, exam_images: int | None = None) -> Batch:
    """Draw images and reports of 5 to 30 WordPieces, normally distributed around their mean.

    Where that is more than 30, reports are of up to twice the mean.
    """
    draws = generator(0, "batch", step)
    spread = torch.randn(config.batch_size, generator=draws) * config.report_tokens / 4
    lengths = (
        (config.report_tokens + spread).round().long().clamp(5, max(30, 2 * config.report_tokens))
    )
    columns = torch.arange(int(lengths.max()))
    mask = (columns < lengths[:, None]).long()
    ids = torch.randint(1000, 30000, mask.shape, generator=draws) * mask
    ids[:, 0] = 101
    ids.scatter_(1, lengths[:, None] - 1, 102)
    size, count = config.image_size, config.batch_size * (exam_images or 1)
    images = torch.randn(count, 3, size, size, generator=draws)
    numbers = torch.arange(config.batch_size)
    groups = None
    if exam_images is not None:
        marks = [marks_of(n / max(1, exam_images - 1), "OD", "bscan") for n in range(exam_images)]
        groups = Groups((exam_images,) * config.batch_size, torch.tensor(marks * config.batch_size))
    lengths_of = tuple(lengths.tolist())
    return Batch(images, ids, mask, lengths_of, numbers, numbers, numbers, groups=groups)


def to_device(batch: Batch, device: torch.device) -> Batch:
    moved = Batch(*[v.to(device) if isinstance(v, Tensor) else v for v in batch])
    if moved.groups is None:
        return moved
    return moved._replace(groups=moved.groups._replace(marks=moved.groups.marks.to(device)))


def our_losses(
    model: RetFiner,
    batch: Batch,
    names: list[str],
    generators: dict[str, torch.Generator],
    clock: Clock,
) -> dict[str, Tensor]:
    """Give the losses as training has them, timing what they share."""
    losses = {name: LOSSES[name]() for name in names}
    with clock.phase("vision"):
        tokens, mask = model.image_tokens(batch)
    with clock.phase("text and keys"):
        encoded = model.relate(
            batch,
            tokens,
            any(loss.uses_similarity for loss in losses.values()),
            any(loss.uses_fusion for loss in losses.values()),
            image_mask=mask,
        )
    with clock.phase("texts over images"):
        return losses_together(losses, model, batch, encoded, generators)


def naive_losses(
    model: RetFiner,
    batch: Batch,
    names: list[str],
    generators: dict[str, torch.Generator],
    clock: Clock,
) -> dict[str, Tensor]:
    with clock.phase("forward"), model.recompute.off():  # the published way shares the modules
        return NaiveStep(model).losses(batch, names, generators)


LossesOf = Callable[
    [RetFiner, Batch, list[str], dict[str, torch.Generator], Clock], dict[str, Tensor]
]


class Stepper:
    """Takes steps one way and keeps what each cost.

    Args:
        config: Settings.
        model: The model; all ways share it.
        optimizer: Its optimiser; ways that take steps alike share one.
        losses_of: From a batch to its losses.
        lacks: The lever this way does without.
        extra: What this way changes in the model.
        channels_last: Whether images and patch embedding lie channels last.
        exam_images: How many images each pair has.
    """

    def __init__(
        self,
        config: BenchmarkConfig,
        model: RetFiner,
        optimizer: torch.optim.Optimizer,
        losses_of: LossesOf = our_losses,
        lacks: Lever | None = None,
        extra: Changes | None = None,
        channels_last: bool = False,
        exam_images: int | None = None,
    ) -> None:
        self.exam_images = exam_images
        self.config, self.model, self.losses_of = config, model, losses_of
        self.lacks, self.extra, self.channels_last = lacks, extra or [], channels_last
        self.device = torch.device(config.device)
        self.optimizer = optimizer
        self.scaler = torch.amp.GradScaler(enabled=config.precision == "16-mixed")
        self.phases: list[dict[str, float]] = []
        self.peak = 0
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []

    def batch(self, step: int) -> Batch:
        """Draw a step's pairs, which lie on the device before the step begins."""
        batch = to_device(make_batch(self.config, step, self.exam_images), self.device)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return batch._replace(images=batch.images.contiguous(memory_format=layout))

    def losses(self, step: int, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        self.model.vision_encoder.patch_embed.to(memory_format=layout)
        names = self.config.losses
        generators = {name: generator(0, "loss", step, name) for name in names}
        kind = AUTOCAST[self.config.precision]
        keeps = self.lacks != "weight_cache"
        autocast = torch.autocast(
            self.device.type, dtype=kind, enabled=kind is not None, cache_enabled=keeps
        )
        with autocast:
            return self.losses_of(self.model, batch, names, generators, clock)

    def step(self, number: int, batch: Batch) -> Clock:
        clock = Clock(self.device)
        # The backward pass too: what checkpointing computes again must be what was computed.
        with without(self.lacks, self.model), having(self.extra):
            total = torch.stack(list(self.losses(number, batch, clock).values())).sum()
            with clock.phase("backward"):
                self.scaler.scale(total).backward()
        with clock.phase("optimiser"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        return clock

    def measure(self, number: int) -> None:
        """Take a step and note its time; its memory is what the steps before it left."""
        batch = self.batch(number)
        synchronise(self.device)
        begun, used = time.perf_counter(), time.process_time()
        clock = self.step(number, batch)
        synchronise(self.device)
        self.seconds.append(time.perf_counter() - begun)
        self.cpu_seconds.append(time.process_time() - used)
        self.phases.append(clock.seconds())

    def measure_memory(self, number: int, others: int) -> None:
        """Take a step from freed memory and note the most it holds.

        ``others`` bytes of other ways' optimisers do not count. Such a step is not timed: to ask
        for all its memory anew takes a fifth of its time on a CPU.
        """
        batch = self.batch(number)
        give_memory_back()
        with peak_memory(self.device) as peak:
            self.step(number, batch)
        self.peak = peak[0] - others

    def forget(self) -> None:
        """Forget what steps cost so far."""
        for kept in (self.phases, self.seconds, self.cpu_seconds):
            kept.clear()

    def summary(self, flops: float, peak_flops: float) -> dict[str, object]:
        names = self.phases[0]
        by_phase = {n: statistics.median(p[n] for p in self.phases) for n in names}
        seconds = statistics.median(self.seconds)
        return {
            "seconds": seconds,
            "cpu_seconds": statistics.median(self.cpu_seconds),
            "pairs_per_second": self.config.batch_size / seconds,
            "peak_memory_gb": self.peak / 1e9,
            "tera_flop": flops / 1e12,
            "share_of_peak": flops / seconds / peak_flops,
            "phases": by_phase,
        }


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes that an optimiser keeps between steps."""
    values = (v for state in optimizer.state.values() for v in state.values())
    return sum(v.numel() * v.element_size() for v in values if isinstance(v, Tensor))


def take_turns(
    ways: dict[str, Stepper], optimizers: list[torch.optim.Optimizer], memory: bool = True
) -> list[str]:
    """Let ways take their steps in turns; return those that do not fit, which are left out."""
    left, config = dict(ways), next(iter(ways.values())).config
    timed = config.warmup + config.steps
    for turn in range(timed + memory):
        for name, way in list(left.items()):
            if turn == config.warmup:
                way.forget()
            try:
                if turn < timed:
                    way.measure(turn)
                else:  # an optimiser has a state from its first step on, and keeps it
                    others = (o for o in optimizers if o is not way.optimizer)
                    way.measure_memory(turn, sum(map(state_bytes, others)))
            except torch.OutOfMemoryError:
                del left[name]
            if name not in left:  # not above, where the error still holds what did not fit
                way.model.zero_grad(set_to_none=True)
                give_memory_back()
    return [name for name in ways if name not in left]


def matrix_peak(device: torch.device, precision: str) -> float:
    """Measure floating-point operations a second of a large matrix product."""
    kind = AUTOCAST[precision] or torch.float32
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    best = 0.0
    for _ in range(8):
        clock = Clock(device)
        with clock.phase("product"):
            a @ b
        best = max(best, 2 * side**3 / clock.seconds()["product"])
    return best


def count_flops(stepper: Stepper) -> float:
    with FlopCounterMode(display=False) as counter:
        losses = stepper.losses(0, stepper.batch(0), Clock(stepper.device))
        torch.stack(list(losses.values())).sum().backward()
    stepper.optimizer.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def same_losses(steppers: list[Stepper]) -> dict[str, float]:
    """Give each loss's largest relative difference between the ways in evaluation mode."""
    model = steppers[0].model.eval()
    with torch.no_grad():
        found = [s.losses(0, s.batch(0), Clock(s.device)) for s in steppers]
    model.train()
    return {
        name: max(abs(other[name] - value).item() / abs(value).item() for other in found)
        for name, value in found[0].items()
    }


def ways_of(config: BenchmarkConfig, model: RetFiner) -> dict[str, Stepper]:
    """Give the ways to take a step that the settings ask for."""
    trained = [p for p in model.parameters() if p.requires_grad]
    fused = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    plain = torch.optim.AdamW(trained, lr=1e-6)  # as torch chooses: on a GPU, tensors together
    ways = {"ours": Stepper(config, model, fused)}
    for lever in config.without:
        optimizer = plain if lever == "fused_adamw" else fused
        ways[f"without {lever}"] = Stepper(config, model, optimizer, lacks=lever)
    if config.gradient_checkpointing:
        extra = changes_of(partial(checkpoint_activations, model), model)
        ways["checkpointing"] = Stepper(config, model, fused, extra=extra)
    if config.chunk_size is not None:
        extra = [(model, "chunk_size", config.chunk_size)]
        ways["in chunks"] = Stepper(config, model, fused, extra=extra)
    if config.channels_last:
        ways["channels last"] = Stepper(config, model, fused, channels_last=True)
    if config.naive:
        ways["naive"] = Stepper(config, model, plain, naive_losses)
    if config.compile:
        extra = changes_of(model.compile_encoders, model)
        ways["compiled"] = Stepper(config, model, fused, extra=extra)
    if config.exam_images is not None:
        way = f"exams of {config.exam_images}"
        ways[way] = Stepper(config, model, fused, exam_images=config.exam_images)
    return ways


def memory_of(config: BenchmarkConfig, name: str) -> int:
    """Give the most bytes that a step of one way holds, of a process that takes no other."""
    way = ways_of(config, build_model(config))[name]
    way.measure(0)  # an optimiser has a state from its first step on
    way.measure_memory(1, 0)
    return way.peak


def main() -> None:
    """Measure and print."""
    config = parse(BenchmarkConfig, "Cost of a training step.")
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    device = torch.device(config.device)
    model = build_model(config)
    ways = ways_of(config, model)
    counted = {name: way for name, way in ways.items() if name != "compiled"}
    flops = {name: count_flops(way) for name, way in counted.items()}
    flops["compiled"] = flops["ours"]  # torch cannot count within compiled code
    differences = same_losses([way for way in counted.values() if way.exam_images is None])
    peak = matrix_peak(device, config.precision)
    optimizers = list({id(way.optimizer): way.optimizer for way in ways.values()}.values())
    for name in take_turns(ways, optimizers, memory=device.type == "cuda"):
        print(f"{name}: does not fit into this device's memory")
        del ways[name]
    if device.type == "cpu":
        for name, way in ways.items():
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                way.peak = alone.submit(memory_of, config, name).result()
    # The same work in fewer operations is not worse: the share is of what a way itself computes.
    results = {name: way.summary(flops[name], peak) for name, way in ways.items()}
    report(config, results, peak, differences)
    for name, way in ways.items() if config.profile else []:
        print_profile(name, way)


def print_profile(name: str, way: Stepper) -> None:
    """Print what a step on a CPU spends on matrix products, on attention and on what is neither."""
    batch = way.batch(0)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        way.step(0, batch)
    spent: dict[str, float] = defaultdict(float)
    rest = []
    for one in profiler.key_averages():
        seconds, operation = one.self_cpu_time_total / 1e6, one.key.removeprefix("aten::")
        kind = next((kind for kind, names in KINDS.items() if operation.startswith(names)), "rest")
        spent[kind] += seconds
        if kind == "rest":
            rest.append((seconds, f"{operation} {seconds:.2f} ({one.count})"))
    shares = ", ".join(f"{kind} {seconds:.2f}" for kind, seconds in spent.items())
    print(f"{name}, seconds of one step: {shares}")
    most = sorted(rest, reverse=True)[:8]
    print("        of the rest (and how many): " + ", ".join(text for _, text in most))


def report(
    config: BenchmarkConfig,
    results: dict[str, dict],
    peak: float,
    differences: dict[str, float],
) -> None:
    name = torch.cuda.get_device_name() if config.device == "cuda" else "CPU"
    print(
        f"{config.backbone}, {config.image_size} pixels, batch {config.batch_size}, "
        f"{config.precision}, {name}, {torch.get_num_threads()} threads; "
        f"matrix peak {peak / 1e9:.0f} GFLOP/s"
    )
    print(f"{'':<26}{'s/step':>8}{'pairs/s':>9}{'TFLOP':>8}{'of peak':>9}{'memory GB':>11}")
    for way, found in results.items():
        print(
            f"{way:<26}{found['seconds']:>8.3f}{found['pairs_per_second']:>9.2f}"
            f"{found['tera_flop']:>8.2f}{100 * found['share_of_peak']:>8.0f}%"
            f"{found['peak_memory_gb']:>11.2f}"
        )
        phases = ", ".join(f"{phase} {s:.3f}" for phase, s in found["phases"].items())
        print(f"        {phases}")
    ours = results.get("ours")
    for way, other in results.items():
        if ours is not None and way != "ours":
            print(
                f"{way + ' / ours':<33}{other['seconds'] / ours['seconds']:.2f} in time, "
                f"{other['cpu_seconds'] / ours['cpu_seconds']:.2f} in time of the processor, "
                f"{other['peak_memory_gb'] / ours['peak_memory_gb']:.2f} in memory"
            )
    print(f"losses differ by at most {max(differences.values()):.0e}")
    if config.output is not None:
        settings = {key: str(value) for key, value in vars(config).items()}
        content = {"settings": settings, "device": name, "peak_flops": peak, "ways": results}
        config.output.write_text(json.dumps(content, indent=2))


if __name__ == "__main__":
    run_entry_point(main)
