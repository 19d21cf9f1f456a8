"""The published sizes, on the meta device: keys, shapes and heads, no memory."""

from __future__ import annotations

import pytest
import torch

from retfiner.vision import BACKBONES

from .layouts import mirage_shapes, vit_shapes

GREEN = vit_shapes(384, 12, 14, 784, layer_scale=True) | {"reg_token": (1, 4, 384)}

DINOV3 = {k: v for k, v in vit_shapes(384, 12, 16, 0).items() if k != "pos_embed"}
DINOV3 |= {"reg_token": (1, 4, 384)}
for i in range(12):
    DINOV3 |= {f"blocks.{i}.gamma_1": (384,), f"blocks.{i}.gamma_2": (384,)}
    DINOV3 |= {f"blocks.{i}.attn.q_bias": (384,), f"blocks.{i}.attn.v_bias": (384,)}
    del DINOV3[f"blocks.{i}.attn.qkv.bias"]
CLIP = vit_shapes(768, 12, 32, 50) | {"norm_pre.weight": (768,), "norm_pre.bias": (768,)}
del CLIP["patch_embed.proj.bias"]

# backbone, published shapes, heads, weights in millions, position shape at the default image size
CASES = [
    ("RETFound", vit_shapes(1024, 24, 16, 197), 16, 303.3, (1, 197, 1024)),
    (
        "RETFound-DINOv2",
        vit_shapes(1024, 24, 14, 1370, layer_scale=True),
        16,
        304.4,
        (1, 257, 1024),
    ),
    ("UrFound", vit_shapes(768, 12, 16, 197), 12, 85.8, (1, 197, 768)),
    ("VisionFM", vit_shapes(768, 12, 16, 197), 12, 85.8, (1, 197, 768)),
    ("MAE", vit_shapes(1280, 32, 14, 257), 16, 630.8, (1, 257, 1280)),
    ("RETFound-Green", GREEN, 6, 21.8, (1, 784, 384)),
    ("MIRAGE", mirage_shapes(768, 12, 32, 16), 12, 85.8, (1, 768, 16, 16)),
    ("MIRAGE", mirage_shapes(1024, 24, 32, 16), 16, 303.4, (1, 1024, 16, 16)),
    ("DINOv3", DINOV3, 6, 21.6, None),
    ("EyeCLIP", CLIP, 12, 87.5, (1, 50, 768)),
    ("OCTCube", vit_shapes(1024, 24, 16, 257), 16, 303.3, (1, 257, 1024)),
    ("Uni4Eye++", vit_shapes(1024, 24, 16, 197), 16, 303.3, (1, 197, 1024)),
    ("MultiMAE", mirage_shapes(768, 12, 32, 16), 8, 86.0, (1, 768, 16, 16)),
]


@pytest.mark.parametrize(("name", "shapes", "heads", "millions", "positions"), CASES)
def test_published_size(name, shapes, heads, millions, positions):
    spec = BACKBONES[name]
    prefix = "model." if spec.in_chans == 1 else ""
    state = {f"{prefix}{k}": torch.empty(s, device="meta") for k, s in shapes.items()}
    assert spec.architecture.heads(state) == heads
    with torch.device("meta"):
        encoder = spec.architecture.build(state, spec.image_size, heads)
    built = {k.removeprefix(prefix): tuple(v.shape) for k, v in encoder.state_dict().items()}
    key = "input_adapters.bscan.pos_emb" if prefix else "pos_embed"
    assert built == shapes | ({key: positions} if positions else {})
    assert all(weight.is_meta for weight in encoder.parameters())
    assert sum(w.numel() for w in encoder.parameters()) / 1e6 == pytest.approx(millions, rel=0.005)
    block = (encoder.model.encoder if prefix else encoder.blocks)[0]
    assert block.attn.num_heads == heads
    assert block.norm1.eps == (1e-5 if name in ("DINOv3", "EyeCLIP") else 1e-6)
