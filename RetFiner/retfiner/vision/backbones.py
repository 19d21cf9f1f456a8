"""Every backbone by name, and which of them a checkpoint is of.

To add one, write its file and a line in :data:`BACKBONES`.
"""

import re
from pathlib import Path

from retfiner.common.errors import InputError, shorten
from retfiner.vision.checkpoint_file import RawCheckpoint
from retfiner.vision.dinov2 import DINOV2
from retfiner.vision.dinov3 import DINOV3
from retfiner.vision.eyeclip import EYECLIP
from retfiner.vision.green import RETFOUND_GREEN
from retfiner.vision.mae import MAE
from retfiner.vision.mirage import MIRAGE, MULTIMAE
from retfiner.vision.octcube import OCTCUBE
from retfiner.vision.plain_vit import is_plain_vit, unsupported_kind
from retfiner.vision.retfound import RETFOUND, RETFOUND_DINOV2, RETFOUND_DINOV3
from retfiner.vision.spec import BackboneSpec
from retfiner.vision.state_dict import unwrap
from retfiner.vision.timm_vit import PREFIX as TIMM_PREFIX
from retfiner.vision.timm_vit import timm_spec
from retfiner.vision.uni4eye import UNI4EYE
from retfiner.vision.urfound import URFOUND
from retfiner.vision.visionfm import VISIONFM

BACKBONES: dict[str, BackboneSpec] = {
    "RETFound": RETFOUND,
    "RETFound-DINOv2": RETFOUND_DINOV2,
    "RETFound-DINOv3": RETFOUND_DINOV3,
    "RETFound-Green": RETFOUND_GREEN,
    "UrFound": URFOUND,
    "VisionFM": VISIONFM,
    "EyeCLIP": EYECLIP,
    "OCTCube": OCTCUBE,
    "Uni4Eye++": UNI4EYE,
    "MIRAGE": MIRAGE,
    "MultiMAE": MULTIMAE,
    "MAE": MAE,
    "DINOv2": DINOV2,
    "DINOv3": DINOV3,
}
"""Every backbone by the name ``--backbone`` takes; besides them, ``timm/<id>``."""


def spec_named(name: str) -> BackboneSpec:
    """Look a name of :data:`BACKBONES` up, whatever its case, or ``timm/<id>``.

    Raises:
        InputError: If there is none of that name.
    """
    if name.lower().startswith(TIMM_PREFIX):
        return timm_spec(name)
    for known, spec in BACKBONES.items():
        if known.lower() == name.lower():
            return spec
    raise InputError(
        "There is no backbone of this name",
        got=name,
        expected=f"one of {', '.join(BACKBONES)}, or timm/<id>",
    )


def resolve_backbone(raw: RawCheckpoint, path: Path | str, requested: str = "auto") -> BackboneSpec:
    """Find out which backbone a checkpoint is of.

    A name that was asked for wins, unless the content contradicts it. Else the content decides:
    our own metadata, then the layout, then the architecture's name in the training run's ``args``.
    Where several backbones share a layout, the file's name (never its folder's) decides.

    ``requested`` is a name in :data:`BACKBONES`, ``timm/<id>`` or ``auto``.

    Raises:
        InputError: If the name is unknown, contradicts the content, or cannot be found out.
    """
    path = Path(path)
    own = raw.metadata.get("backbone")
    if requested.lower() == "auto":
        return spec_named(own) if own is not None else _recognised(raw, path)
    spec = spec_named(requested)
    if not spec.matches(raw) if own is None else own != spec.name:
        possible = [own] if own is not None else [s.name for s in _matching(raw)]
        if not possible and not is_plain_vit(unwrap(raw).state):
            raise _unknown(raw, path)
        raise InputError(
            f"{path.name} is not a checkpoint of {spec.name}",
            got=f"the content of {' or '.join(possible) or 'no known backbone'}",
            expected=spec.name,
            remedy="give another file, or leave --backbone out"
            if possible
            else "give another file, or --backbone timm/<id>, which takes any plain ViT of timm",
        )
    return spec


def _matching(raw: RawCheckpoint) -> list[BackboneSpec]:
    return [spec for spec in BACKBONES.values() if spec.matches(raw)]


def _recognised(raw: RawCheckpoint, path: Path) -> BackboneSpec:
    possible = _matching(raw)
    if not possible:
        raise _unknown(raw, path)
    if len(possible) == 1:
        return possible[0]
    # Masked autoencoders of all kinds train as "mae_vit_large_patch16": there, the name of a
    # method says nothing about the weights.
    architecture = str(getattr(raw.content.get("args"), "model", ""))
    specific = [spec for spec in possible if not spec.generic]
    spec = _hinted(architecture, specific) or _hinted(path.name, possible)
    if spec is None:
        raise InputError(
            f"{path.name} may be of several backbones that share this layout",
            got=f"a file name that speaks for none of them, or for more than one: {path.name}",
            expected=f"one of {', '.join(spec.name for spec in possible)}",
            remedy="name it with --backbone; a model of timm's own is --backbone timm/<id>",
        )
    return spec


def _hinted(name: str, possible: list[BackboneSpec]) -> BackboneSpec | None:
    """Find the one backbone a name speaks for; a specific one goes before a generic one."""
    hits = [spec for spec in possible if spec.hinted_by(name)]
    hits = [spec for spec in hits if not spec.generic] or hits
    return hits[0] if len(hits) == 1 else None


def _unknown(raw: RawCheckpoint, path: Path) -> InputError:
    """Say what a file holds that no backbone can be made of."""
    state = unwrap(raw).state
    # All blocks are alike: what lies outside of them says more.
    telling = shorten(sorted(state, key=lambda key: (bool(re.search(r"\d", key)), key)))
    kind = unsupported_kind(state)
    if kind is not None:
        return InputError(
            f"{path.name} cannot be used: it holds {kind}",
            got=telling,
            expected="a vision transformer of single images with a class token "
            f"({', '.join(BACKBONES)} or timm/<id>)",
            remedy="give a checkpoint of another model; no flag makes this one fit",
        )
    plain = is_plain_vit(state)
    return InputError(
        f"{path.name} has the layout of no known backbone",
        got=telling,
        expected=f"one of {', '.join(BACKBONES)}",
        remedy="--backbone timm/<id> takes any plain ViT of timm"
        if plain
        else "save the encoder alone, with timm's keys (patch_embed.proj.weight, "
        "blocks.0.attn.qkv.weight, ...); then --backbone NAME or timm/<id> says what it is",
    )
