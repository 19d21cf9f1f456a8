"""The keys of transformers' ViT, ViTMAE and Dinov2 models, turned into timm's."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

KEY = "embeddings.patch_embeddings.projection.weight"
"""A key that such a model has and no other."""

_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.mask_token": "mask_token",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
_BLOCK = re.compile(r"(?:encoder\.)?layers?\.(\d+)\.(.*)")
_IN_BLOCK = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
_SPLIT = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
_AFTER = ("pooler.", "classifier.")
"""Beginnings of keys after the encoder."""


def converted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename to timm's keys and join query, key and value; what is unknown keeps its name."""
    out: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key.startswith(_AFTER):
            continue
        found = _BLOCK.fullmatch(key)
        if found is None:
            out[_renamed(key, _NAMES)] = tensor
            continue
        block, inner = f"blocks.{found[1]}.", found[2]
        name, _, kind = inner.rpartition(".")
        if name not in _SPLIT:
            out[block + _renamed(inner, _IN_BLOCK)] = tensor
        elif name == _SPLIT[0]:
            before = key.removesuffix(f"{_SPLIT[0]}.{kind}")
            parts = [state.get(f"{before}{part}.{kind}") for part in _SPLIT]
            if any(part is None for part in parts):
                out[key] = tensor  # left over, and the loader says so
            else:
                out[f"{block}attn.qkv.{kind}"] = torch.cat([p for p in parts if p is not None])
    return out


def _renamed(key: str, names: Mapping[str, str]) -> str:
    for theirs, ours in names.items():
        if key == theirs or key.startswith(f"{theirs}."):
            return ours + key.removeprefix(theirs)
    return key
