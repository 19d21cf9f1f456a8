"""Vision transformers written straight from the paper, in float64, head by head.

They share nothing with the package or timm but the names of the published keys.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + eps) * weight + bias


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def attention(s: dict[str, Tensor], x: Tensor, heads: int) -> Tensor:
    bias = s.get("attn.qkv.bias", torch.zeros(3 * x.shape[-1], dtype=x.dtype))
    q, k, v = (x @ s["attn.qkv.weight"].T + bias).chunk(3, dim=-1)
    size = x.shape[-1] // heads
    outs = []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(size)
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        outs.append(weights / weights.sum(-1, keepdim=True) @ v[..., part])
    return torch.cat(outs, dim=-1) @ s["attn.proj.weight"].T + s["attn.proj.bias"]


def block(state: dict[str, Tensor], prefix: str, x: Tensor, heads: int) -> Tensor:
    s = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    y = attention(s, layer_norm(x, s["norm1.weight"], s["norm1.bias"]), heads)
    x = x + y * s.get("ls1.gamma", 1.0)
    y = layer_norm(x, s["norm2.weight"], s["norm2.bias"])
    y = gelu(y @ s["mlp.fc1.weight"].T + s["mlp.fc1.bias"]) @ s["mlp.fc2.weight"].T
    return x + (y + s["mlp.fc2.bias"]) * s.get("ls2.gamma", 1.0)


def patches(weight: Tensor, bias: Tensor, images: Tensor) -> Tensor:
    """Project patches in row-major order."""
    p = weight.shape[-1]
    rows, columns = images.shape[2] // p, images.shape[3] // p
    flat = [
        images[:, :, r * p : (r + 1) * p, c * p : (c + 1) * p].flatten(1) @ weight.flatten(1).T
        for r in range(rows)
        for c in range(columns)
    ]
    return torch.stack(flat, dim=1) + bias


def double(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.double() for key, value in state.items()}


def vit(state: dict[str, Tensor], images: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Plain ViT up to its last block: (B, P, D) prefix tokens and (B, N, D) patch tokens.

    ``register_tokens`` are DINOv2's: positions are for CLS and patches, registers come between.
    ``reg_token`` are timm's without embedded prefix: positions are for patches alone.
    """
    state, images = double(state), images.double()
    x = patches(state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], images)
    cls = state["cls_token"].expand(len(images), -1, -1)
    if "reg_token" in state:
        registers = state["reg_token"].expand(len(images), -1, -1)
        x = torch.cat([cls, registers, x + state["pos_embed"]], dim=1)
    else:
        x = torch.cat([cls, x], dim=1) + state["pos_embed"]
    if "register_tokens" in state:
        registers = state["register_tokens"].expand(len(images), -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
    count = 1 + sum(state[k].shape[1] for k in ("reg_token", "register_tokens") if k in state)
    depth = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))
    for i in range(depth):
        x = block(state, f"blocks.{i}.", x, heads)
    return x[:, :count], x[:, count:]


def mirage(state: dict[str, Tensor], images: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """MIRAGE's B-scan path: the global token (last in its sequence), and patch tokens."""
    state, images = double(state), images.double()
    adapter = "input_adapters.bscan."
    x = patches(state[f"{adapter}proj.weight"], state[f"{adapter}proj.bias"], images)
    x = x + state[f"{adapter}pos_emb"].flatten(2).transpose(1, 2)
    x = torch.cat([x, state["global_tokens"].expand(len(images), -1, -1)], dim=1)
    depth = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("encoder."))
    for i in range(depth):
        x = block(state, f"encoder.{i}.", x, heads)
    return x[:, -1:], x[:, :-1]
