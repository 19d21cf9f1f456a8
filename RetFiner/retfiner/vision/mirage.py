"""MIRAGE and the in-house MultiMAE: multimodal masked autoencoders, their B-scan path alone.

Both are MultiMAE (Bachmann et al., 2022) over B-scans, SLO images and layer maps. Only what a
B-scan passes through is kept: its input adapter, the global token and the encoder. The encoder has
no final norm. The published checkpoints of training runs and the safetensors file hold the keys
under ``model.``, and so does the module here.
"""

import re
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from timm.models import checkpoint_seq
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from retfiner.vision.checkpoint_file import RawCheckpoint
from retfiner.vision.features import ImageTokens
from retfiner.vision.plain_vit import (
    WIDTH_PER_HEAD,
    check_sizes,
    count_blocks,
    mlp_ratio,
    require_keys,
)
from retfiner.vision.spec import Architecture, BackboneSpec, State
from retfiner.vision.state_dict import unwrap, widened

_POSITIONS = "model.input_adapters.bscan.pos_emb"
_PROJECTION = "model.input_adapters.bscan.proj.weight"
_GLOBAL = "model.global_tokens"
_HIDDEN = "model.encoder.0.mlp.fc1.weight"
_OTHER_MODALITIES = re.compile(r"input_adapters\.(?!bscan\.)|output_adapters\.")


class MirageEncoder(nn.Module):
    """The B-scan path of MIRAGE, its modules nested as in the published one.

    Attributes:
        fixed: Names of parameters that never train: sines and cosines of the position.
    """

    model: Any
    fixed = (_POSITIONS,)

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        patch: int = 32,
        image_size: int = 512,
        in_chans: int = 1,
    ) -> None:
        super().__init__()
        self.embed_dim, self.patch_size = width, (patch, patch)
        self.grad_checkpointing = False
        norm = partial(nn.LayerNorm, eps=1e-6)
        positions = torch.zeros(1, width, image_size // patch, image_size // patch)
        bscan: Any = nn.Module()
        bscan.pos_emb = nn.Parameter(positions, requires_grad=False)
        bscan.proj = nn.Conv2d(in_chans, width, patch, patch)
        self.model = nn.Module()
        self.model.global_tokens = nn.Parameter(torch.zeros(1, 1, width))
        self.model.input_adapters = nn.ModuleDict({"bscan": bscan})
        self.model.encoder = nn.Sequential(
            *(
                Block(width, heads, mlp_ratio=mlp_ratio, qkv_bias=True, norm_layer=norm)
                for _ in range(depth)
            )
        )

    @property
    def blocks(self) -> nn.Sequential:
        """The transformer's blocks, as timm's models call them."""
        return self.model.encoder

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Tell the embeddings' parameters from the blocks', as timm's models do."""
        return {"stem": r"^model\.(?:global|input)_", "blocks": [(r"^model\.encoder\.(\d+)", None)]}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute activations again in the backward pass, as timm's models do."""
        self.grad_checkpointing = enable

    def forward(self, images: Tensor) -> ImageTokens:
        """Run the encoder on (B, 1, H, W) intensities in [0, 1]."""
        bscan = self.model.input_adapters["bscan"]
        patches = (bscan.proj(images) + bscan.pos_emb).flatten(2).transpose(1, 2)
        # The published model puts the global token last; its blocks know no order, but a
        # reader comparing sequences does.
        # Of len() the exporter to ONNX would take the number of the moment for every batch's.
        global_tokens = self.model.global_tokens.expand(patches.shape[0], -1, -1)
        sequence = torch.cat([patches, global_tokens], dim=1)
        run = partial(checkpoint_seq, self.blocks) if self.grad_checkpointing else self.blocks
        sequence = run(sequence)
        return ImageTokens(prefix=sequence[:, -1:], patches=sequence[:, :-1])


def matches(raw: RawCheckpoint) -> bool:
    """Recognise the adapter of B-scans."""
    return "input_adapters.bscan.proj.weight" in unwrap(raw).state


def repair(raw: RawCheckpoint) -> dict[str, Tensor]:
    """Keep the B-scan path, under ``model.``, of any layout that has been published or saved."""
    state = unwrap(raw).state
    return {f"model.{k}": widened(v) for k, v in state.items() if not _OTHER_MODALITIES.match(k)}


def build(state: State, image_size: int, num_heads: int) -> MirageEncoder:
    """Build the B-scan path, without trained weights, by the shapes of a repaired state.

    Raises:
        InputError: If the keys are not MIRAGE's or the sizes do not go together.
    """
    require_keys(state, (_PROJECTION, _POSITIONS, _GLOBAL, _HIDDEN), "MIRAGE")
    width, in_chans, patch, _ = state[_PROJECTION].shape
    check_sizes(width, patch, image_size, num_heads)
    return MirageEncoder(
        width=width,
        depth=count_blocks(state, "model.encoder."),
        heads=num_heads,
        mlp_ratio=mlp_ratio(state[_HIDDEN].shape[0], width),
        patch=patch,
        image_size=image_size,
        in_chans=in_chans,
    )


def resize(state: State, image_size: int) -> dict[str, Tensor]:
    """Interpolate the positions (bicubic, as MultiMAE does) to an image size."""
    resized = dict(state)
    grid = image_size // state[_PROJECTION].shape[-1]
    if state[_POSITIONS].shape[-2:] != (grid, grid):
        resized[_POSITIONS] = F.interpolate(
            state[_POSITIONS], size=(grid, grid), mode="bicubic", align_corners=False
        )
    return resized


def trained_size(state: State) -> int:
    """Give the image size in pixels that the positions are for."""
    return state[_POSITIONS].shape[-1] * state[_PROJECTION].shape[-1]


def wrap(state: State) -> dict[str, Any]:
    """Lay keys out as the published ``.pth`` files do, without other modalities and decoders.

    MIRAGE's own code reads the architecture from a pickled ``args`` next to ``model``: take that
    entry from the published file the run began with.
    """
    return {"model": {key.removeprefix("model."): value for key, value in state.items()}}


def usual_heads(state: State) -> int | None:
    """Give MIRAGE's number of heads: 12 in Base, 16 in Large."""
    return WIDTH_PER_HEAD.get(state[_GLOBAL].shape[-1]) if _GLOBAL in state else None


MIRAGE_VIT = Architecture(
    repair, build, resize, trained_size, usual_heads, lambda encoder, images: encoder(images)
)

MIRAGE = BackboneSpec(
    name="MIRAGE",
    title="MIRAGE, ViT-B/32 and ViT-L/32 at 512 pixels",
    licence="CC BY-NC-ND 4.0",
    source="https://github.com/j-morano/MIRAGE",
    citation=(
        "Morano et al., MIRAGE: Multimodal foundation model and benchmark for comprehensive "
        "retinal OCT image analysis, npj Digital Medicine, 2025"
    ),
    architecture=MIRAGE_VIT,
    matches=matches,
    wrap=wrap,
    sizes=("ViT-B/32", "ViT-L/32"),
    mean=(0.0,),
    std=(1.0,),
    in_chans=1,
    image_size=512,
    text_norm=False,  # there is no final norm to apply
    min_max=True,
    modalities=("oct",),
    filename_hints=("mirage",),
)

MULTIMAE = replace(
    MIRAGE,
    name="MultiMAE",
    title="In-house MultiMAE (MIRAGE's layout, 8 heads)",
    licence="not published",
    source="https://github.com/EPFL-VILAB/MultiMAE",
    citation="Bachmann et al., MultiMAE: Multi-modal Multi-task Masked Autoencoders, ECCV 2022",
    architecture=replace(MIRAGE_VIT, heads=lambda state: 8 if _GLOBAL in state else None),
    sizes=(),
    modalities=("oct",),
    filename_hints=("multimae",),
)
