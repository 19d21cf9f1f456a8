"""Vision transformers written straight from the paper, in float64, head by head.

They share nothing with the package or timm but the names of the published keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + eps) * weight + bias


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def quick_gelu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-1.702 * x))


def attention(
    s: dict[str, Tensor], x: Tensor, heads: int, turn: Callable[[Tensor], Tensor] = lambda x: x
) -> Tensor:
    bias = s.get("attn.qkv.bias", torch.zeros(3 * x.shape[-1], dtype=x.dtype))
    bias = bias * s.get("attn.qkv.bias_mask", 1.0)
    q, k, v = (x @ s["attn.qkv.weight"].T + bias).chunk(3, dim=-1)
    size = x.shape[-1] // heads
    outs = []
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        scores = turn(q[..., part]) @ turn(k[..., part]).transpose(1, 2) / math.sqrt(size)
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        outs.append(weights / weights.sum(-1, keepdim=True) @ v[..., part])
    return torch.cat(outs, dim=-1) @ s["attn.proj.weight"].T + s["attn.proj.bias"]


def linear(s: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ s[f"{name}.weight"].T + s[f"{name}.bias"]


def block(
    state: dict[str, Tensor],
    prefix: str,
    x: Tensor,
    heads: int,
    eps: float = 1e-6,
    act: Callable[[Tensor], Tensor] = gelu,
    turn: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    s = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    y = attention(s, layer_norm(x, s["norm1.weight"], s["norm1.bias"], eps), heads, turn)
    x = x + y * s.get("ls1.gamma", 1.0)
    y = layer_norm(x, s["norm2.weight"], s["norm2.bias"], eps)
    if "mlp.w1.weight" in s:
        gate = linear(s, "mlp.w1", y)
        y = linear(s, "mlp.w3", gate / (1 + torch.exp(-gate)) * linear(s, "mlp.w2", y))
    else:
        y = linear(s, "mlp.fc2", act(linear(s, "mlp.fc1", y)))
    return x + y * s.get("ls2.gamma", 1.0)


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


def depth_of(state: dict[str, Tensor]) -> int:
    return 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))


def dinov3(state: dict[str, Tensor], images: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """DINOv3 of Meta's keys: pairs of channels are turned in the plane, by height and by width."""
    state, images = double(state), images.double()
    x = patches(state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], images)
    prefix = torch.cat([state["cls_token"], state["storage_tokens"]], dim=1)
    count, side, size = prefix.shape[1], math.isqrt(x.shape[1]), x.shape[-1] // heads
    periods = [100 ** (j / (size // 4)) for j in range(size // 4)]
    angles = torch.zeros(count + side * side, size // 2, dtype=torch.float64)
    for row in range(side):
        for column in range(side):
            at = [2 * (place + 0.5) / side - 1 for place in (row, column)]
            turned = [2 * math.pi * place / period for place in at for period in periods]
            angles[count + row * side + column] = torch.tensor(turned)

    def turn(v: Tensor) -> Tensor:
        first, second = v.chunk(2, dim=-1)
        turned = torch.complex(first, second) * torch.exp(1j * angles)
        return torch.cat([turned.real, turned.imag], dim=-1)

    x = torch.cat([prefix.expand(len(x), -1, -1), x], dim=1)
    for i in range(depth_of(state)):
        x = block(state, f"blocks.{i}.", x, heads, eps=1e-5, turn=turn)
    return x[:, :count], x[:, count:]


CLIP_NAMES = {
    "ln_1.": "norm1.", "ln_2.": "norm2.", "attn.in_proj_": "attn.qkv.",
    "attn.out_proj.": "attn.proj.", "mlp.c_fc.": "mlp.fc1.", "mlp.c_proj.": "mlp.fc2.",
}  # fmt: skip


def clip(state: dict[str, Tensor], images: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """CLIP's ViT: a norm before its blocks, and QuickGELU in them."""
    state, images = double(state), images.double()
    x = patches(state["conv1.weight"], torch.zeros(1, dtype=torch.float64), images)
    x = torch.cat([state["class_embedding"].expand(len(x), 1, -1), x], dim=1)
    x = x + state["positional_embedding"]
    x = layer_norm(x, state["ln_pre.weight"], state["ln_pre.bias"], 1e-5)
    blocks = {}
    for key, value in state.items():
        if key.startswith("transformer.resblocks."):
            name = key.removeprefix("transformer.res")
            for theirs, ours in CLIP_NAMES.items():
                name = name.replace(theirs, ours)
            blocks[name] = value
    for i in range(depth_of(blocks)):
        x = block(blocks, f"blocks.{i}.", x, heads, eps=1e-5, act=quick_gelu)
    return x[:, :1], x[:, 1:]


def octcube(state: dict[str, Tensor], images: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """OCTCube on a volume of three B-scans, as flash-attn runs its blocks: sum, norm, layer."""
    state, images = double(state), images.double()
    patch = state["patch_embed.proj.weight"].shape[-1]
    weight, bias = state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    x = F.conv3d(images[:, None], weight, bias, stride=(3, patch, patch)).flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1)
    x = x + torch.cat([state["pos_embed_class"], state["pos_embed_spatial"]], dim=1)
    residual = torch.zeros_like(x)
    for i in range(depth_of(state)):
        s = {k.removeprefix(f"blocks.{i}."): v for k, v in state.items()}
        for kind in ("weight", "bias"):
            s[f"attn.qkv.{kind}"] = s[f"mixer.Wqkv.{kind}"]
            s[f"attn.proj.{kind}"] = s[f"mixer.out_proj.{kind}"]
        residual = residual + x
        x = attention(s, layer_norm(residual, s["norm1.weight"], s["norm1.bias"]), heads)
        residual = residual + x
        y = layer_norm(residual, s["norm2.weight"], s["norm2.bias"])
        x = linear(s, "mlp.fc2", gelu(linear(s, "mlp.fc1", y)))
    return x[:, :1], x[:, 1:]
