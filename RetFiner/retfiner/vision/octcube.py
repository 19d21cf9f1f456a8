"""OCTCube: a masked autoencoder of OCT volumes (Liu et al., 2024), as an encoder of single B-scans.

Its patches are three B-scans deep. One B-scan takes the way it takes in the authors' training on
single images (``Pre-training/models_mae_joint_res_flash_attn.py``): three times in the place of
three neighbours, which makes a plain ViT of three channels, and without positions along the depth.
Intensities are those of its volumes, in [0, 1].
"""

from dataclasses import replace
from typing import Any

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

from retfiner.vision import plain_vit
from retfiner.vision.checkpoint_file import RawCheckpoint
from retfiner.vision.spec import BackboneSpec, State
from retfiner.vision.state_dict import encoder_part, renamed, unwrap

_NAMES = {"mixer.Wqkv.": "attn.qkv.", "mixer.out_proj.": "attn.proj."}
"""Parts of the keys of flash-attn's blocks, and timm's for them."""
_PATCHES = "patch_embed.proj.weight"
_POSITIONS = ("pos_embed_class", "pos_embed_spatial")
_OF_VOLUMES = ("pos_embed_temporal", "high_res_patch_embed.")


class FlashBlock(Block):
    """A block as flash-attn's: a sum is left to the next block, and after the last, undone.

    The published encoder hands on what its last MLP gives, without what that was to be added to;
    its final norm and its decoder were trained on that.
    """

    is_last = False

    def forward(self, x: Tensor, *args: Any, **options: Any) -> Tensor:
        """Compute (B, T, D) tokens from such."""
        if not self.is_last:
            return super().forward(x, *args, **options)
        x = x + self.drop_path1(self.attn(self.norm1(x), *args, **options))
        return self.mlp(self.norm2(x))


def matches(raw: RawCheckpoint) -> bool:
    """Recognise three-dimensional patches, positions by place and depth, and flash-attn's keys."""
    state = unwrap(raw).state
    axes = {_PATCHES: 5, "pos_embed_class": 3, "pos_embed_spatial": 3}
    if "blocks.0.mixer.Wqkv.weight" not in state or not axes.keys() <= state.keys():
        return False
    of_class, spatial = (state[key].shape[::2] for key in _POSITIONS)
    return all(state[k].ndim == number for k, number in axes.items()) and of_class == spatial


def repair(raw: RawCheckpoint) -> dict[str, Tensor]:
    """Give a plain ViT's keys: B-scans of a patch become channels, positions one table.

    Raises:
        InputError: If the encoder's final norm was replaced in fine-tuning.
    """
    state = encoder_part(unwrap(raw).state)
    if matches(raw):
        state[_PATCHES] = state[_PATCHES].squeeze(1)
        state["pos_embed"] = torch.cat([state.pop(key) for key in _POSITIONS], dim=1)
    return {renamed(k, _NAMES): v for k, v in state.items() if not k.startswith(_OF_VOLUMES)}


def build(state: State, image_size: int, num_heads: int) -> VisionTransformer:
    """Build the encoder of B-scans by a repaired state's shapes.

    Raises:
        InputError: If the keys are not a plain ViT's, or the shapes do not go together.
    """
    encoder = plain_vit.build(state, image_size, num_heads, block_fn=FlashBlock)
    encoder.blocks[-1].is_last = True
    return encoder


def under_model(state: State) -> dict[str, dict[str, Tensor]]:
    """Lay keys out as published, but for positions along the depth, which B-scans have none of."""
    names = {ours: theirs for theirs, ours in _NAMES.items()}
    laid = {renamed(k, names): v for k, v in state.items() if k != "pos_embed"}
    laid[_PATCHES] = state[_PATCHES].unsqueeze(1)
    laid |= zip(_POSITIONS, state["pos_embed"].tensor_split([1], dim=1), strict=True)
    return {"model": laid}


OCTCUBE = BackboneSpec(
    name="OCTCube",
    title="OCTCube, its ViT-L/16 on single B-scans",
    licence="none stated (its code: BSD 2-Clause)",
    source="https://github.com/ZucksLiu/OCTCubeM",
    citation=(
        "Liu et al., OCTCube-M: A 3D multimodal optical coherence tomography foundation model for "
        "retinal and systemic diseases, arXiv:2408.11227, 2024"
    ),
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    architecture=replace(plain_vit.PLAIN_VIT, repair=repair, build=build),
    matches=matches,
    wrap=under_model,
    sizes=("ViT-L/16",),
    image_size=256,
    representation="concat_postnorm",  # its last block's output has no meaning before the norm
    modalities=("oct",),
    filename_hints=("octcube",),
)
