"""A plain ViT as a folder that transformers loads: config.json, model.safetensors, preprocessor.

The keys are those of the Hugging Face hub (``encoder.layer.0.attention.attention.query``), which
transformers 4 and 5 read alike. ViTs with LayerScale become DINOv2, those with register tokens
DINOv2 with registers; both apply the final norm to what they return, as transformers does.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from torch import Tensor

from retfiner.common.errors import InputError
from retfiner.common.files import save_safetensors, whole_file, write_text
from retfiner.vision import Backbone
from retfiner.vision.checkpoint_file import OWN_KEY
from retfiner.vision.plain_vit import is_plain_vit
from retfiner.vision.timm_vit import is_timms

ARCHITECTURES = {
    "vit": "ViTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
}
"""Classes of transformers by their ``model_type``."""

NAMED_BY_USER = ("run", "base_weights_file", "weights_file")
"""What of a backbone's provenance a folder that may be shared does not tell: words of a user's."""

_VIT_NAMES = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_DINOV2_NAMES = {
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}


def save_hf(folder: Path, backbone: Backbone) -> None:
    """Write a backbone so that ``transformers.AutoModel.from_pretrained(folder)`` loads it.

    Raises:
        InputError: If it is no plain ViT (MIRAGE, DINOv3, CLIP), or has a width of none.
    """
    weights = {k: v.detach().cpu() for k, v in backbone.encoder.state_dict().items()}
    other = "norm_pre.weight" in weights or not is_timms(backbone.encoder)
    if other or not is_plain_vit(weights) or "norm.weight" not in weights:
        raise InputError(
            f"{backbone.spec.name} cannot be written for transformers",
            expected="a plain ViT",
            remedy="--format safetensors or --format onnx",
        )
    kind = "dinov2" if "blocks.0.ls1.gamma" in weights else "vit"
    kind = "dinov2_with_registers" if "reg_token" in weights else kind
    config, state = _config(backbone, weights, kind), _renamed(weights, kind)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / "model.safetensors") as temporary:
        save_safetensors(state, temporary, {"format": "pt"})
    origin = {key: value for key, value in backbone.provenance.items() if key not in NAMED_BY_USER}
    about = {OWN_KEY: {"backbone": backbone.spec.name, "provenance": origin}}
    write_text(folder / "config.json", _json(config | about))
    write_text(folder / "preprocessor_config.json", _json(_preprocessor(backbone)))


def _config(backbone: Backbone, state: dict[str, Tensor], kind: str) -> dict[str, Any]:
    """Describe a plain ViT as transformers does."""
    width = backbone.width
    hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
    config: dict[str, Any] = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "hidden_size": width,
        "num_hidden_layers": len(backbone.blocks),
        "num_attention_heads": backbone.num_heads,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-6,
        "image_size": backbone.image_size,
        "patch_size": backbone.patch_size,
        "num_channels": backbone.spec.in_chans,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "dtype": "float32",
    }
    if kind == "vit":
        return config | {"intermediate_size": hidden}
    if hidden % width:
        raise InputError(
            "transformers' DINOv2 has no MLP of this width",
            got=f"{hidden} for tokens {width} wide",
            expected="a multiple",
            remedy="--format timm or --format onnx",
        )
    config |= {"mlp_ratio": hidden // width, "use_swiglu_ffn": False, "drop_path_rate": 0.0}
    if kind == "dinov2_with_registers":
        config["num_register_tokens"] = state["reg_token"].shape[1]
    return config


def _renamed(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Give a plain ViT's weights the keys of the Hugging Face hub."""
    renamed = _embeddings(state, kind)
    for key in (key for key in state if key.startswith("blocks.")):
        _, number, name = key.split(".", 2)
        layer = f"encoder.layer.{number}."
        if name.startswith("attn.qkv."):
            part = name.rsplit(".", 1)[1]
            for letter, value in zip(("query", "key", "value"), state[key].chunk(3), strict=True):
                renamed[f"{layer}attention.attention.{letter}.{part}"] = value.clone()
            continue
        for ours, theirs in (_VIT_NAMES if kind == "vit" else _DINOV2_NAMES).items():
            name = name.replace(ours, theirs)
        renamed[layer + name] = state[key].clone()
    renamed["layernorm.weight"] = state["norm.weight"].clone()
    renamed["layernorm.bias"] = state["norm.bias"].clone()
    return renamed


def _preprocessor(backbone: Backbone) -> dict[str, Any]:
    """Say how an image is resized and normalised: (bilinear, [0, 1], mean and deviation)."""
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": backbone.image_size, "width": backbone.image_size},
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(backbone.spec.mean),
        "image_std": list(backbone.spec.std),
    }


def push_folder(folder: Path, name: str) -> str:
    """Upload a folder to the Hugging Face hub as a private model, and say where it is.

    Raises:
        InputError: If the hub cannot be reached or refuses.
    """
    api = HfApi()
    try:
        # Private: whether others may see it is decided on the hub, by somebody who looked at it.
        api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)
    except Exception as error:  # the hub's own, and those of its HTTP library
        raise InputError(
            f"{folder} cannot be uploaded as {name}",
            got=(str(error).strip() or type(error).__name__).splitlines()[0],
            remedy="log in with `hf auth login`; the folder is complete and can be uploaded later",
        ) from error
    return f"{name} on the Hugging Face hub, private"


def hf_provenance(folder: Path) -> dict[str, Any]:
    """Say where the weights of a folder written by :func:`save_hf` come from; empty if unknown."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    own = config.get(OWN_KEY, {}) if isinstance(config, dict) else {}
    found = own.get("provenance", {}) if isinstance(own, dict) else {}
    return found if isinstance(found, dict) else {}


def _embeddings(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    projection = "embeddings.patch_embeddings.projection"
    positions, width = state["pos_embed"], state["pos_embed"].shape[-1]
    if math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:
        # Here CLS has no position of its own (it was added to the token): transformers adds one.
        positions = torch.cat([torch.zeros(1, 1, width), positions], dim=1)
    renamed = {
        "embeddings.cls_token": state["cls_token"].clone(),
        "embeddings.position_embeddings": positions.clone(),
        f"{projection}.weight": state["patch_embed.proj.weight"].clone(),
        f"{projection}.bias": state["patch_embed.proj.bias"].clone(),
    }
    if kind != "vit":
        renamed["embeddings.mask_token"] = torch.zeros(1, width)
    if kind == "dinov2_with_registers":
        renamed["embeddings.register_tokens"] = state["reg_token"].clone()
    return renamed


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
