"""Checkpoint file -> backbone -> checkpoint file.

Nothing is ever loaded with leftovers: missing and unexpected keys and wrong shapes are errors
that name them. What we write says what it is, and is laid out so that the base model's own code
reads it.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from retfiner.common.errors import InputError, shorten
from retfiner.common.files import save_safetensors, save_torch, whole_file
from retfiner.common.progress import progress
from retfiner.vision.backbones import resolve_backbone, spec_named
from retfiner.vision.checkpoint_file import OWN_KEY, RawCheckpoint, read_checkpoint
from retfiner.vision.spec import Backbone, BackboneSpec, State
from retfiner.vision.state_dict import text_projection, unwrap
from retfiner.vision.timm_vit import is_timms

Format = Literal["base", "safetensors", "timm"]


def load_backbone(
    path: Path | str,
    backbone: str = "auto",
    image_size: int | None = None,
    num_heads: int | None = None,
) -> Backbone:
    """Load a backbone from any checkpoint layout this package knows.

    ``backbone`` is a name in ``BACKBONES``, ``timm/<id>``, or ``auto`` to find out. ``image_size``,
    the input's side in pixels, is by default as the file says or, where it says nothing, the
    backbone's own; position embeddings are interpolated to it. ``num_heads`` is needed for widths
    outside the ViT family only.

    Raises:
        InputError: If the file cannot be read, is of no or another backbone, or does not fit.
    """
    path = Path(path)
    with progress(f"reading {path.name}"):
        return _loaded(path, backbone, image_size, num_heads)


def _loaded(path: Path, backbone: str, image_size: int | None, num_heads: int | None) -> Backbone:
    raw = read_checkpoint(path)
    spec = resolve_backbone(raw, path, backbone)
    _check_normalisation(spec, raw.metadata, path)
    state = spec.architecture.repair(raw)
    heads = _number_of_heads(spec, state, raw.metadata.get("num_heads"), num_heads)
    size = raw.metadata.get("image_size", spec.image_size) if image_size is None else image_size
    encoder = _filled(spec, state, size, heads, path)
    provenance = {**raw.metadata.get("provenance", {}), "weights_file": path.name}
    notes = (*unwrap(raw).notes, *_resized(spec, state, size))
    return Backbone(spec, encoder.float(), size, heads, provenance, text_projection(raw), notes)


def backbone_from_state(
    name: str, state: State, image_size: int, num_heads: int | None = None
) -> Backbone:
    """Make a backbone from copies of an encoder's own keys, as a training checkpoint holds them.

    Raises:
        InputError: If the state does not fit the backbone.
    """
    spec = spec_named(name)
    repaired = spec.architecture.repair(RawCheckpoint(state))
    heads = _number_of_heads(spec, repaired, None, num_heads)
    encoder = _filled(spec, repaired, image_size, heads, "the given state")
    return Backbone(spec, encoder, image_size, heads)


def save_backbone(path: Path | str, backbone: Backbone, format: Format = "base") -> None:
    """Write a backbone, whole or not at all.

    * ``base``: ``torch.save`` in the base model's own layout (RETFound: ``['model']``; VisionFM:
      ``['teacher']``, ``backbone.*``).
    * ``safetensors``: the encoder's own keys.
    * ``timm``: the same, where timm has such a model, so that ``timm.create_model(...,
      checkpoint_path=path)`` loads it.

    The latter two ask for a path ending in ``.safetensors``, the first for any other. Each also
    says what it is (backbone, image size, heads, mean, std, provenance) under ``retfiner``, which
    :func:`load_backbone` goes by.

    Raises:
        InputError: If the suffix does not go with the format, or timm has no such model.
    """
    path = Path(path)
    _check_format(path, backbone, format)
    state = {k: v.detach().cpu().contiguous() for k, v in backbone.encoder.state_dict().items()}
    metadata = {
        "backbone": backbone.spec.name,
        "image_size": backbone.image_size,
        "num_heads": backbone.num_heads,
        "mean": list(backbone.spec.mean),
        "std": list(backbone.spec.std),
        "provenance": dict(backbone.provenance),
    }
    with whole_file(path) as temporary:
        if format == "base":
            save_torch(_with_metadata(backbone.spec.wrap(state), metadata), temporary)
        else:
            save_safetensors(state, temporary, {"format": "pt", OWN_KEY: json.dumps(metadata)})


def _filled(
    spec: BackboneSpec, state: State, image_size: int, heads: int, path: Path | str
) -> nn.Module:
    """Build an encoder and fill it with copies of weights: none missing or left over."""
    _check_weights(spec, state, path)
    with torch.device("meta"):  # no time and memory for weights that are replaced at once
        encoder = spec.architecture.build(state, image_size, heads)
    state = spec.architecture.resize(state, image_size)
    wanted = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    missing = [key for key in wanted if key not in found]
    left_over = [key for key in found if key not in wanted]
    unequal = [key for key in wanted if key in found and wanted[key] != found[key]]
    if missing or left_over or unequal:
        got = [f"{key} {found[key]}" for key in (*left_over, *unequal)]
        expected = [f"{key} {wanted[key]}" for key in (*missing, *unequal)]
        raise InputError(
            f"{path} does not fit {spec.name}: {len(missing)} weights missing, "
            f"{len(left_over)} left over, {len(unequal)} of another shape",
            got=shorten(got) or "nothing in their place",
            expected=shorten(expected) or "none of these",
            remedy="name the backbone the file is of with --backbone, or give its published "
            "checkpoint",
        )
    copies = {key: value.detach().clone().contiguous() for key, value in state.items()}
    encoder.load_state_dict(copies, strict=True, assign=True)
    _fill_buffers(encoder)
    return encoder.eval()


def _fill_buffers(encoder: nn.Module) -> None:
    """Compute what no file holds, as the angles of rotary positions, built without memory."""
    for module in encoder.modules():
        lacking = [name for name, b in module.named_buffers(recurse=False) if b.is_meta]
        for name in lacking:
            setattr(module, name, torch.empty_like(getattr(module, name), device="cpu"))
        if lacking:
            module.init_non_persistent_buffers()  # type: ignore[operator]


def _resized(spec: BackboneSpec, state: State, size: int) -> list[str]:
    """Say where positions were interpolated though nobody may have asked for it."""
    trained = spec.architecture.trained_size(state)
    if trained in (None, size):
        return []
    return [
        f"the positions were trained for {trained} x {trained} pixels and are interpolated to "
        f"{size} x {size}; --image_size {trained} uses them as they are"
    ]


def _number_of_heads(
    spec: BackboneSpec, state: State, recorded: int | None, requested: int | None
) -> int:
    """Settle the number of heads: the file's own word, then the user's, then the spec's rule."""
    if recorded is not None and requested not in (None, recorded):
        raise InputError(
            "The checkpoint says it has another number of attention heads",
            got=requested,
            expected=recorded,
            remedy="leave num_heads out",
        )
    for heads in (recorded, requested, spec.architecture.heads(state)):
        if heads is not None:
            return heads
    raise InputError(
        f"{spec.name}: the number of attention heads cannot be read from weights",
        got="a width outside the ViT family (192, 384, 768, 1024, 1280)",
        expected="num_heads",
        remedy="give the num_heads the backbone was trained with",
    )


def _check_weights(spec: BackboneSpec, state: State, path: Path | str) -> None:
    for key, weight in state.items():
        if not weight.is_floating_point():
            raise InputError(
                f"{path}: {key} is no floating-point weight",
                got=str(weight.dtype),
                expected="float32 or half precision, not quantised",
            )
        if not weight.sum(dtype=torch.float64).isfinite():
            raise InputError(
                f"{path}: {key} holds values that are no numbers",
                got="NaN or infinity, as after a training that diverged",
                expected="finite weights",
                remedy="give an earlier checkpoint, or download it again",
            )
        patches = key.endswith(("patch_embed.proj.weight", "input_adapters.bscan.proj.weight"))
        channels = weight.shape[1] if weight.ndim > 1 else 0
        if patches and channels != spec.in_chans:
            raise InputError(
                f"{path} takes images of another number of channels than {spec.name}",
                got=channels,
                expected=spec.in_chans,
            )


def _check_normalisation(spec: BackboneSpec, metadata: Mapping[str, Any], path: Path) -> None:
    for key, ours in (("mean", spec.mean), ("std", spec.std)):
        theirs = tuple(metadata.get(key, ours))
        if theirs != ours:
            raise InputError(
                f"{path} was written for another input normalisation than {spec.name} has now",
                got=f"{key} {theirs}",
                expected=f"{key} {ours}",
                remedy="extract it again with this version",
            )


def _check_format(path: Path, backbone: Backbone, format: str) -> None:
    if format not in get_args(Format):
        expected = ", ".join(get_args(Format))
        raise InputError("Unknown checkpoint format", got=format, expected=expected)
    if (path.suffix.lower() == ".safetensors") == (format == "base"):
        raise InputError(
            f"{path.name} has the wrong suffix for the format {format!r}",
            got=path.suffix or "none",
            expected=".pth" if format == "base" else ".safetensors",
        )
    if format == "timm" and not is_timms(backbone.encoder):
        raise InputError(
            f"{backbone.spec.name} cannot be written for timm",
            got=f"an encoder that computes as none of timm's does ({backbone.spec.title})",
            expected="a plain vision transformer or DINOv3, of which timm has models",
            remedy="choose the format 'safetensors' or 'base'",
        )


def _with_metadata(content: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """Add our metadata where the base model's own code does not stumble over it.

    Beside ``model`` or ``teacher`` an entry more is harmless. A flat state dict is loaded whole
    and strictly: there it goes into ``_metadata``, torch's own place for what is no weight.
    """
    if not any(isinstance(value, Tensor) for value in content.values()):
        return {**content, OWN_KEY: metadata}
    state = OrderedDict(content)
    state._metadata = {OWN_KEY: metadata}  # type: ignore[attr-defined]
    return state
