"""What turns frozen patch tokens into a class for each pixel, and how it is trained.

Shapes: B images in a batch, P x P patches, tokens D wide, C classes, pictures S x S.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from linprobe.schedule import learning_rate_at
from linprobe.segmentation.config import Head, SegmentConfig
from linprobe.segmentation.masks import Labels
from retfiner.common.errors import InputError
from retfiner.common.progress import track
from retfiner.common.seeds import generator


@dataclass(frozen=True)
class Tokens:
    """Patch tokens of N images, (N, P * P * D) in half precision, which may lie on the disk."""

    stored: Tensor
    side: int

    def maps(self, rows: Tensor, device: torch.device) -> Tensor:
        """Take those of some images: (B, D, P, P) float32."""
        part = self.stored[rows].float().view(len(rows), self.side, self.side, -1)
        return part.permute(0, 3, 1, 2).to(device)


def build_head(kind: Head, width: int, classes: int) -> nn.Module:
    """Make a head from (B, D, P, P) to (B, C, p, p).

    ``conv`` enlarges the map progressively (SETR-PUP; Zheng et al., 2021), twice, 128 and 64 wide.
    ``linear`` is DINOv2's linear segmentation (Oquab et al., 2024), batch norm and one layer; what
    is smaller than a patch, it cannot draw.
    """
    if kind == "linear":
        return nn.Sequential(nn.BatchNorm2d(width), nn.Conv2d(width, classes, 1))

    def larger(given: int, wide: int) -> list[nn.Module]:
        conv = nn.Conv2d(given, wide, 3, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(wide), nn.GELU(), nn.Upsample(scale_factor=2, mode="bilinear")]

    return nn.Sequential(
        nn.BatchNorm2d(width), *larger(width, 128), *larger(128, 64), nn.Conv2d(64, classes, 1)
    )


def shrunk(masks: Sequence[Labels], side: int) -> Tensor:
    """Bring masks to the size the encoder sees, each pixel the nearest: (N, S, S) uint8."""
    small = [F.interpolate(torch.from_numpy(mask)[None, None], (side, side)) for mask in masks]
    return torch.cat(small)[:, 0]


def train_head(
    config: SegmentConfig,
    tokens: dict[str, Tokens],
    masks: dict[str, Tensor],
    classes: int,
    seed: int,
    device: torch.device,
) -> nn.Module:
    """Train a head by cross-entropy and soft Dice; the epoch that is best on ``val`` is kept.

    The sum of both as in nnU-Net (Isensee et al., 2021): lesions are a hundredth of the pixels,
    and cross-entropy alone finds none.

    Raises:
        InputError: If training diverges.
    """
    draws = generator(seed, "segmentation")
    train = tokens["train"]
    with torch.random.fork_rng():
        torch.manual_seed(draws.initial_seed())
        width = train.stored.shape[1] // train.side**2
        head = build_head(config.head, width, classes).to(device)
    optimiser = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    best, kept = float("inf"), copy.deepcopy(head.state_dict())
    for epoch in track(range(config.epochs), f"training the head, seed {seed}", unit="epoch"):
        head.train()
        batches = torch.randperm(len(masks["train"]), generator=draws).split(config.batch_size)
        for step, rows in enumerate(batches):
            optimiser.param_groups[0]["lr"] = learning_rate_at(
                epoch + step / len(batches), peak=config.learning_rate, lowest=0.0, warmup=0,
                epochs=config.epochs,
            )  # fmt: skip
            loss = _loss(head, train, masks["train"], rows, device)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        found = _validation_loss(head, tokens["val"], masks["val"], config.batch_size, device)
        if not np.isfinite(found):
            raise InputError(
                "The training of the head diverged",
                got=f"a loss of {found} in epoch {epoch + 1}",
                remedy="a lower --learning_rate",
            )
        if found < best:
            best, kept = found, copy.deepcopy(head.state_dict())
    head.load_state_dict(kept)
    return head.eval()


def _loss(
    head: nn.Module, tokens: Tokens, masks: Tensor, rows: Tensor, device: torch.device
) -> Tensor:
    logits = head(tokens.maps(rows, device))
    large = F.interpolate(logits, masks.shape[1:], mode="bilinear")
    truth = masks[rows].to(device).long()
    return F.cross_entropy(large, truth) + _dice_loss(large, truth)


def _dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """One minus the soft Dice of a batch, the mean over classes but the background."""
    found = logits.softmax(1)[:, 1:]
    there = F.one_hot(truth, logits.shape[1]).movedim(-1, 1)[:, 1:]
    common, total = (found * there).sum((0, 2, 3)), (found + there).sum((0, 2, 3))
    return 1 - (2 * common / total.clamp_min(1e-8)).mean()


def _validation_loss(
    head: nn.Module, tokens: Tokens, masks: Tensor, batch: int, device: torch.device
) -> float:
    head.eval()
    with torch.inference_mode():
        parts = torch.arange(len(masks)).split(batch)
        sums = [len(rows) * float(_loss(head, tokens, masks, rows, device)) for rows in parts]
    return sum(sums) / len(masks)


def predict(
    head: nn.Module, tokens: Tokens, sizes: Sequence[tuple[int, ...]], device: torch.device
) -> list[Labels]:
    """Give each pixel of each picture, at its own (H, W), its likeliest class."""
    found = []
    with torch.inference_mode():
        for row, size in enumerate(sizes):
            logits = head(tokens.maps(torch.tensor([row]), device))
            large = F.interpolate(logits, size, mode="bilinear")
            found.append(large.argmax(1)[0].to(torch.uint8).cpu().numpy())
    return found
