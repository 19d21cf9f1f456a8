"""The keys of transformers' ViT, ViTMAE, Dinov2 and DINOv3 models, turned into timm's or Meta's."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

KEY = "embeddings.patch_embeddings.projection.weight"
DINOV3_KEY = "embeddings.patch_embeddings.weight"
"""Keys that such a model has and no other."""

_NAMES = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "register_tokens",
    "embeddings.mask_token": "mask_token",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
}
_DINOV3_NAMES = _NAMES | {
    "embeddings.register_tokens": "storage_tokens",
    "embeddings.patch_embeddings": "patch_embed.proj",
}
_BLOCK = re.compile(r"(?:encoder\.|model\.)?layers?\.(\d+)\.(.*)")
_IN_BLOCK = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "attention.o_proj": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
_MLP = {"mlp.up_proj": "mlp.fc1", "mlp.down_proj": "mlp.fc2"}
_GATED_MLP = {"mlp.gate_proj": "mlp.w1", "mlp.up_proj": "mlp.w2", "mlp.down_proj": "mlp.w3"}
_SPLIT = (
    tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
    tuple(f"attention.{part}_proj" for part in "qkv"),
)
_UNUSED = ("pooler.", "classifier.", "rope_embeddings.")
"""Beginnings of keys after the encoder, or of what a formula gives."""


def converted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename to timm's keys and join query, key and value; what is unknown keeps its name.

    DINOv3's become Meta's, whose bias of keys is zero where transformers has none.
    """
    is_gated = any(".mlp.gate_proj." in key for key in state)
    names = _DINOV3_NAMES if DINOV3_KEY in state else _NAMES
    in_block = _IN_BLOCK | (_GATED_MLP if is_gated else _MLP)
    out: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key.startswith(_UNUSED):
            continue
        found = _BLOCK.fullmatch(key)
        if found is None:
            out[_renamed(key, names)] = tensor
            continue
        block, inner = f"blocks.{found[1]}.", found[2]
        name, _, kind = inner.rpartition(".")
        split = next((parts for parts in _SPLIT if name in parts), None)
        if split is None:
            out[block + _renamed(inner, in_block)] = tensor
        elif name == split[0]:
            before = key.removesuffix(inner)
            parts = [state.get(f"{before}{part}.{kind}") for part in split]
            if parts[1] is None and kind == "bias" and DINOV3_KEY in state:
                parts[1] = torch.zeros_like(tensor)
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
