"""Small models with weights that are neither random nor trivial."""

from __future__ import annotations

import zlib
from functools import partial

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from transformers import BertConfig

from retfiner.losses import ITMHead
from retfiner.model import Batch, RetFiner
from retfiner.text.encoder import CrossAttentionBert
from retfiner.vision import BACKBONES, Backbone

PARITY_NAMES = {"vision_proj.": "vision_encoder.proj."}
"""Our names of parameters that the published code keeps inside the ViT."""


def parity_name(name: str) -> str:
    for ours, theirs in PARITY_NAMES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


@torch.no_grad()
def fill(
    module: nn.Module, keep: frozenset[str] = frozenset({"contra_temp", "contra_bias"})
) -> None:
    """Fill parameters by name: 0.2 x standard normal seeded by the name's CRC, norms around 1."""
    for ours, parameter in module.named_parameters():
        name = parity_name(ours)
        if name in keep:
            continue
        draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(parameter.shape)
        values = 0.2 * torch.from_numpy(np.asarray(draw))
        if name.endswith("weight") and "norm" in name.removesuffix("weight").lower():
            values = values + 1
        parameter.copy_(values)


def small_vit(width: int = 48, size: int = 32, patch: int = 8, depth: int = 2, heads: int = 4):
    return VisionTransformer(
        img_size=size,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        num_classes=0,
        global_pool="",
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )


def small_backbone(width: int = 48, name: str = "RETFound", heads: int = 4) -> Backbone:
    return Backbone(BACKBONES[name], small_vit(width, heads=heads), 32, heads)


def small_bert(width: int = 32, vocab_size: int = 120) -> CrossAttentionBert:
    return CrossAttentionBert(
        BertConfig(
            vocab_size=vocab_size,
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=40,
            layer_norm_eps=1e-12,
            is_decoder=True,
            add_cross_attention=True,
        )
    )


def small_model(vision_width: int = 48, backbone: str = "RETFound", **options) -> RetFiner:
    """A whole model in evaluation mode and float64, filled by name."""
    settings = {"contrastive_dim": 16, "itm_head": ITMHead(32), "mask_token_id": 4} | options
    model = RetFiner(small_backbone(vision_width, backbone), small_bert(), **settings)
    model = model.double().eval()
    with torch.no_grad():
        if model.is_contrastive and not model.exponential_temp:
            model.contra_temp.fill_(settings.get("temperature", 0.07))  # exact in float64
    fill(model)
    return model


def make_batch(
    images: Tensor, input_ids: Tensor, attention_mask: Tensor, report_ids: Tensor | None = None
) -> Batch:
    return Batch(
        images=images,
        input_ids=input_ids,
        attention_mask=attention_mask,
        lengths=tuple(attention_mask.sum(1).tolist()),
        report_ids=torch.arange(len(images)) if report_ids is None else report_ids,
        image_ids=torch.arange(len(images)),
        rows=torch.arange(len(images)),
    )


def random_batch(size: int = 6, length: int = 12, seed: int = 0, vocab_size: int = 120) -> Batch:
    """Reports of 4 to ``length`` tokens: [CLS] = 2, words, [SEP] = 3, padding = 0."""
    rng = np.random.default_rng(seed)
    ids = torch.zeros(size, length, dtype=torch.long)
    mask = torch.zeros(size, length, dtype=torch.long)
    for row in range(size):
        n = length if row == 0 else int(rng.integers(4, length + 1))
        ids[row, :n] = torch.from_numpy(rng.integers(5, vocab_size, n))
        ids[row, 0], ids[row, n - 1] = 2, 3
        mask[row, :n] = 1
    return make_batch(torch.from_numpy(rng.standard_normal((size, 3, 32, 32))), ids, mask)
