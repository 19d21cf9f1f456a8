"""MIRAGE and the in-house MultiMAE: multimodal masked autoencoders, their B-scan path alone.

Both are MultiMAE (Bachmann et al., 2022) over B-scans, SLO images and layer maps. Only what a
B-scan passes through is kept: its input adapter, the global token and the encoder. The encoder has
no final norm. The published checkpoints of training runs and the safetensors file hold the keys
under ``model.``, and so does the module here.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from retfiner.common.errors import InputError, shorten
from retfiner.vision.features import ImageTokens
from retfiner.vision.keys import unwrap, widened
from retfiner.vision.plain_vit import WIDTH_PER_HEAD, check_sizes
from retfiner.vision.reading import RawCheckpoint
from retfiner.vision.spec import BackboneSpec, State

_POSITIONS = "model.input_adapters.bscan.pos_emb"
_PROJECTION = "model.input_adapters.bscan.proj.weight"
_GLOBAL = "model.global_tokens"
_OTHER_MODALITIES = re.compile(r"input_adapters\.(?!bscan\.)|output_adapters\.")


class _BscanAdapter(nn.Module):
    """Cut B-scans into patches, project them and add fixed positions."""

    def __init__(self, width: int, in_chans: int, patch: int, grid: int) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(torch.zeros(1, width, grid, grid), requires_grad=False)
        self.proj = nn.Conv2d(in_chans, width, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        return (self.proj(images) + self.pos_emb).flatten(2).transpose(1, 2)


class _BscanTransformer(nn.Module):
    """The published module, without the other modalities and the decoders."""

    def __init__(
        self, width: int, depth: int, heads: int, hidden: int, adapter: _BscanAdapter
    ) -> None:
        super().__init__()
        self.global_tokens = nn.Parameter(torch.zeros(1, 1, width))
        self.input_adapters = nn.ModuleDict({"bscan": adapter})
        block = partial(
            Block,
            dim=width,
            num_heads=heads,
            mlp_ratio=(hidden + 0.5) / width,  # timm truncates the product
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        self.encoder = nn.Sequential(*(block() for _ in range(depth)))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.input_adapters["bscan"](images)
        # The published model puts the global token last; its blocks know no order, but a
        # reader comparing sequences does.
        global_tokens = self.global_tokens.expand(len(patches), -1, -1)
        return self.encoder(torch.cat([patches, global_tokens], dim=1))


class MirageEncoder(nn.Module):
    """The B-scan path of MIRAGE.

    Attributes:
        embed_dim: Token width D.
        patch_size: Side length of a patch in pixels.

    Args:
        width: Token width D.
        depth: Number of blocks.
        heads: Number of attention heads.
        hidden: Width of the MLP's hidden layer.
        patch: Side length of a patch in pixels.
        image_size: Side length of the input in pixels.
        in_chans: Number of input channels.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        patch: int = 32,
        image_size: int = 512,
        in_chans: int = 1,
    ) -> None:
        super().__init__()
        self.embed_dim = width
        self.patch_size = patch
        adapter = _BscanAdapter(width, in_chans, patch, image_size // patch)
        self.model = _BscanTransformer(width, depth, heads, hidden, adapter)

    def forward(self, images: Tensor) -> ImageTokens:
        """Run the encoder.

        Args:
            images: (B, 1, H, W), intensities in [0, 1].
        """
        sequence = self.model(images)
        return ImageTokens(prefix=sequence[:, -1:], patches=sequence[:, :-1])


def matches(raw: RawCheckpoint) -> bool:
    """Recognise the adapter of B-scans."""
    return "input_adapters.bscan.proj.weight" in unwrap(raw).state


def repair(raw: RawCheckpoint) -> dict[str, Tensor]:
    """Keep the B-scan path of a published checkpoint, under ``model.``.

    Args:
        raw: A checkpoint as published, as a training run holds it, or the module's own keys.
    """
    state = unwrap(raw).state
    return {f"model.{k}": widened(v) for k, v in state.items() if not _OTHER_MODALITIES.match(k)}


def build(state: State, image_size: int, num_heads: int) -> MirageEncoder:
    """Build the B-scan path without trained weights.

    Args:
        state: A repaired state; only its shapes are read.
        image_size: Side length of the input in pixels.
        num_heads: Number of attention heads.

    Raises:
        InputError: If the keys are not MIRAGE's or the sizes do not go together.
    """
    hidden_key = "model.encoder.0.mlp.fc1.weight"
    missing = [key for key in (_PROJECTION, _POSITIONS, _GLOBAL, hidden_key) if key not in state]
    if missing:
        raise InputError(
            "The weights are not those of MIRAGE",
            got=shorten(sorted(state)),
            expected=f"also {', '.join(missing)}",
            remedy="name the backbone with --backbone, or give its published checkpoint",
        )
    width, in_chans, patch, _ = state[_PROJECTION].shape
    check_sizes(width, patch, image_size, num_heads)
    blocks = [int(m[1]) for key in state if (m := re.match(r"model\.encoder\.(\d+)\.", key))]
    return MirageEncoder(
        width=width,
        depth=1 + max(blocks),
        heads=num_heads,
        hidden=state[hidden_key].shape[0],
        patch=patch,
        image_size=image_size,
        in_chans=in_chans,
    )


def resize(state: State, image_size: int) -> dict[str, Tensor]:
    """Interpolate the positions (bicubic, as MultiMAE does) to an image size.

    Args:
        state: A repaired state.
        image_size: Side length of the input in pixels.
    """
    resized = dict(state)
    grid = image_size // state[_PROJECTION].shape[-1]
    if state[_POSITIONS].shape[-2:] != (grid, grid):
        resized[_POSITIONS] = F.interpolate(
            state[_POSITIONS], size=(grid, grid), mode="bicubic", align_corners=False
        )
    return resized


def tokens(encoder: nn.Module, images: Tensor) -> ImageTokens:
    """Run the encoder.

    Args:
        encoder: A :class:`MirageEncoder`.
        images: (B, 1, H, W), intensities in [0, 1].
    """
    return encoder(images)


def wrap(state: State) -> dict[str, Any]:
    """Lay keys out as the published ``.pth`` files do, without other modalities and decoders.

    MIRAGE's own code reads the architecture from a pickled ``args`` next to ``model``: take that
    entry from the published file the run began with.
    """
    return {"model": {key.removeprefix("model."): value for key, value in state.items()}}


def usual_heads(state: State) -> int | None:
    """Give MIRAGE's number of heads: 12 in Base, 16 in Large."""
    return WIDTH_PER_HEAD.get(state[_GLOBAL].shape[-1]) if _GLOBAL in state else None


def eight_heads(state: State) -> int | None:
    """Give the in-house MultiMAE's number of heads, 8 at any width."""
    return 8 if _GLOBAL in state else None


MIRAGE = BackboneSpec(
    name="MIRAGE",
    title="MIRAGE, ViT-B/32 and ViT-L/32 at 512 pixels",
    licence="CC BY-NC-ND 4.0",
    source="https://github.com/j-morano/MIRAGE",
    citation=(
        "Morano et al., MIRAGE: Multimodal foundation model and benchmark for comprehensive "
        "retinal OCT image analysis, npj Digital Medicine, 2025"
    ),
    mean=(0.0,),
    std=(1.0,),
    matches=matches,
    repair=repair,
    build=build,
    resize=resize,
    heads=usual_heads,
    tokens=tokens,
    wrap=wrap,
    in_chans=1,
    image_size=512,
    text_norm=False,  # there is no final norm to apply
    representation="concat_prenorm",
    min_max=True,
    filename_hints=("mirage",),
)

MULTIMAE = BackboneSpec(
    name="MultiMAE",
    title="In-house MultiMAE (MIRAGE's layout, 8 heads)",
    licence="not published",
    source="https://github.com/EPFL-VILAB/MultiMAE",
    citation="Bachmann et al., MultiMAE: Multi-modal Multi-task Masked Autoencoders, ECCV 2022",
    mean=(0.0,),
    std=(1.0,),
    matches=matches,
    repair=repair,
    build=build,
    resize=resize,
    heads=eight_heads,
    tokens=tokens,
    wrap=wrap,
    in_chans=1,
    image_size=512,
    text_norm=False,
    representation="concat_prenorm",
    min_max=True,
    filename_hints=("multimae",),
)
