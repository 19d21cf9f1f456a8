"""Pretrain a small ViT on images alone by masked autoencoding (He et al., CVPR 2022).

For those without a foundation model at hand: the result is a checkpoint in RETFound's layout. The
model and its loss are transformers' ViTMAE; only the loop and the key names are ours.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from retfiner.common.errors import InputError
from retfiner.common.faults import explained_faults
from retfiner.common.files import save_torch, whole_file
from retfiner.common.progress import progress, track
from retfiner.common.seeds import derive_seed, generator
from retfiner.training.precision import is_made_for_bfloat16
from retfiner.training.pretrain_config import PretrainConfig, image_files
from retfiner.vision.images import iter_images
from retfiner.vision.preprocessing import EvaluationTransform
from retfiner.vision.spec import IMAGENET_MEAN, IMAGENET_STD


@explained_faults()
def pretrain(config: PretrainConfig) -> None:
    """Pretrain and write a checkpoint in RETFound's layout.

    Raises:
        InputError: If there are too few images.
    """
    images = load_images(config.images, config.image_size)
    torch.manual_seed(derive_seed(config.seed, "pretrain"))  # transformers' initial weights
    model = build_mae(config)
    losses = train_mae(model, images, config)
    state = to_vit_keys(model.state_dict())
    with whole_file(config.output) as temporary:
        save_torch(as_retfound(state, config), temporary)
    print(f"Reconstruction loss {losses[0]:.3f} -> {losses[-1]:.3f} in {config.epochs} epochs")
    print(f"Base model:     {config.output}")


def load_images(folder: Path, image_size: int) -> Tensor:
    """Read all images below a folder, of volumes every B-scan, as (N, 1, S, S) uint8.

    Files that cannot be read are left out, and it is said how many.

    Raises:
        InputError: If there are fewer than two.
    """
    paths = image_files(folder)
    resize = EvaluationTransform(image_size, (0.0,), (1.0,), 1)

    def load(path: Path) -> list[Tensor] | str:
        try:
            return [(resize(image) * 255).round().to(torch.uint8) for image in iter_images(path)]
        except InputError as error:
            return error.in_one_line

    with ThreadPoolExecutor(4) as pool:
        reading = track(pool.map(load, paths), "reading images", len(paths), "file")
        read = list(reading)
    images = [image for file in read if not isinstance(file, str) for image in file]
    unread = [reason for reason in read if isinstance(reason, str)]
    if len(images) < 2:
        raise InputError(
            f"{folder} holds too few images",
            got="; ".join([f"{len(images)} of {len(paths)} files", *unread[:1]]),
            expected="at least 2",
        )
    if unread:
        print(f"{len(unread)} of {len(paths)} files cannot be read and are left out: {unread[0]}")
    return torch.stack(images)


def build_mae(config: PretrainConfig) -> ViTMAEForPreTraining:
    """Build a ViT with a light decoder, 75 % of the patches hidden, as in the MAE paper."""
    return ViTMAEForPreTraining(
        ViTMAEConfig(
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_channels=3,
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            intermediate_size=4 * config.width,
            decoder_hidden_size=64,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=2,
            decoder_intermediate_size=256,
            mask_ratio=0.75,
            norm_pix_loss=True,
            layer_norm_eps=1e-6,
            # 0.02 suits the paper's 1,024 channels. In a narrow ViT it leaves the blocks mute, and
            # the features learn several times slower, here and in refinement.
            initializer_range=config.width**-0.5,
        )
    )


def train_mae(model: ViTMAEForPreTraining, images: Tensor, config: PretrainConfig) -> list[float]:
    """Train the autoencoder on (N, 1, S, S) uint8 images.

    Returns:
        The mean reconstruction loss of each epoch.
    """
    steps = config.epochs * -(-len(images) // config.batch_size)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=0.05
    )
    # Of ten steps a tenth is one, and torch divides by the steps of the warm-up less one.
    warmup = 0.1 if steps != 10 else 0.11
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=steps, pct_start=warmup
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    means = []
    with progress("pretraining", steps, "step") as bar:
        for epoch in range(config.epochs):
            losses = []
            for pixels, noise in _batches(images, config, epoch):
                with torch.autocast(
                    device.type, torch.bfloat16, enabled=is_made_for_bfloat16(device.type)
                ):
                    loss = model(pixels.to(device), noise=noise.to(device)).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                bar.update()
            means.append(sum(losses) / len(losses))
            bar.set_postfix(loss=f"{means[-1]:.3f}")
    return means


def _batches(images: Tensor, config: PretrainConfig, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield normalised pixels and the noise that decides which patches are hidden."""
    random = generator(config.seed, "pretrain", epoch)
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    patches = (config.image_size // config.patch_size) ** 2
    for chosen in torch.randperm(len(images), generator=random).split(config.batch_size):
        pixels = images[chosen].float().div(255)
        flips = torch.rand(len(chosen), generator=random) < 0.5
        pixels[flips] = pixels[flips].flip(-1)
        yield (pixels - mean) / std, torch.rand(len(chosen), patches, generator=random)


RENAMED = (
    (r"^vit\.embeddings\.cls_token$", "cls_token"),
    (r"^vit\.embeddings\.position_embeddings$", "pos_embed"),
    (r"^vit\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^vit\.layernorm\.", "norm."),
    (r"^vit\.layers\.", "blocks."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.([qkv])_proj\.", r".attn.\1."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
)
"""transformers' names and those of a plain ViT."""


def to_vit_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a transformers ViTMAE encoder to plain ViT keys; the decoder is left out."""
    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        if not key.startswith("vit."):
            continue
        name = key
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        plain[name] = value.detach().cpu().clone()
    for query in [key for key in plain if ".attn.q." in key]:
        parts = [plain.pop(query.replace(".q.", f".{name}.")) for name in "qkv"]
        plain[query.replace(".q.", ".qkv.")] = torch.cat(parts)
    return plain


def as_retfound(state: dict[str, Tensor], config: PretrainConfig) -> dict[str, object]:
    """Lay a plain ViT out as RETFound's files are: model, epoch, args, and our description."""
    return {
        "model": state,
        "epoch": config.epochs - 1,
        "args": argparse.Namespace(
            model=f"mae_vit_w{config.width}_d{config.depth}_patch{config.patch_size}",
            input_size=config.image_size,
            epochs=config.epochs,
            norm_pix_loss=True,
            mask_ratio=0.75,
        ),
        "retfiner": {
            "backbone": "RETFound",
            "image_size": config.image_size,
            "num_heads": config.num_heads,
            "provenance": {"pretrained_by": "pretrain_base.py", "epochs": config.epochs},
        },
    }
