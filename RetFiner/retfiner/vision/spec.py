"""What a backbone is: numbers and functions in one place, read by both stages.

A :class:`BackboneSpec` states everything that distinguishes one published vision transformer from
another; a :class:`Backbone` is a spec with loaded weights. Neither knows any checkpoint by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from retfiner.common.errors import InputError
from retfiner.vision.features import ImageTokens, probing_features

if TYPE_CHECKING:
    from retfiner.vision.checkpoint_file import RawCheckpoint

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

VIT_SIZES = {"ViT-S": (384, 12), "ViT-B": (768, 12), "ViT-L": (1024, 24), "ViT-H": (1280, 32)}
"""Width and depth of the family's members (Dosovitskiy et al., 2021; Touvron et al., 2021)."""

State = Mapping[str, Tensor]

_SHORT = 5
"""A file name's fragment of fewer letters must stand alone: "mae" is no hint in "maestro"."""


@dataclass(frozen=True)
class Architecture:
    """The code of an encoder, shared by the backbones that differ in weights and numbers alone.

    Attributes:
        repair: From a checkpoint as published to the encoder's own keys, nothing else.
        build: From a repaired state (its shapes only), an image size in pixels and a number of
            heads to an encoder without trained weights; also works under ``torch.device("meta")``.
            The encoder has ``embed_dim`` and, of timm's interface, ``blocks``, ``group_matcher``
            and ``set_grad_checkpointing``.
        resize: Interpolate the position embedding of a repaired state to an image size in pixels.
        trained_size: The image size in pixels that a repaired state's positions are for, or None
            where there are none to interpolate.
        heads: The number of attention heads, or None where the weights' shapes do not settle it.
        tokens: The encoder's forward pass.
    """

    repair: Callable[[RawCheckpoint], dict[str, Tensor]]
    build: Callable[[State, int, int], nn.Module]
    resize: Callable[[State, int], dict[str, Tensor]]
    trained_size: Callable[[State], int | None]
    heads: Callable[[State], int | None]
    tokens: Callable[[nn.Module, Tensor], ImageTokens]


@dataclass(frozen=True)
class BackboneSpec:
    """One published backbone: its numbers, its checkpoint layout and its architecture.

    Attributes:
        name: The name ``--backbone`` takes.
        title: The name as its authors write it, with the architecture after a comma.
        licence: Licence of the published weights, as far as their source states one.
        source: Where the weights and their terms are to be found.
        matches: Whether a checkpoint's content can be of this backbone.
        wrap: From the encoder's own keys to the layout of the published file, so that the base
            model's own code reads it.
        sizes: The published sizes, ``ViT-L/16`` for example; empty where any size is meant.
        mean: Per-channel mean of the input normalisation, of intensities in [0, 1]; ``std``
            likewise.
        image_size: Default side length of the input in pixels.
        text_norm: Whether the final norm is applied to the tokens handed to the text side.
        representation: Definition of the linear-probing features, see ``features.METHODS``.
        min_max: Whether each image's intensities are stretched to [0, 1] first.
        modalities: Kinds of images it was pretrained on, as far as its name says; empty: any.
        generic: Named after a method that others build on, so that a file name which also names
            a specific backbone means the latter (``RETFound_mae_natureOCT.pth`` is RETFound).
        filename_hints: Lower-case fragments of file names that speak for this backbone; those of
            fewer than five letters count as whole words only.
    """

    name: str
    title: str
    licence: str
    source: str
    citation: str
    architecture: Architecture
    matches: Callable[[RawCheckpoint], bool]
    wrap: Callable[[State], dict[str, Any]]
    sizes: tuple[str, ...] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    in_chans: int = 3
    image_size: int = 224
    text_norm: bool = True
    representation: str = "concat_prenorm"
    min_max: bool = False
    modalities: tuple[str, ...] = ()
    generic: bool = False
    filename_hints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.in_chans:
            raise InputError(
                f"{self.name}: mean and std need one number a channel",
                got=f"{len(self.mean)} and {len(self.std)}",
                expected=self.in_chans,
            )

    @property
    def forbids_derivatives(self) -> bool:
        """Whether the licence, of the ND kind, lets nobody share what is made of the weights."""
        return "ND" in re.split("[ -]", self.licence.upper())

    def hinted_by(self, name: str) -> bool:
        """Say whether a file's name, in any case, speaks for this backbone."""
        return any(
            re.search(rf"(?<![a-z]){hint}(?![a-z])" if len(hint) < _SHORT else hint, name.lower())
            for hint in self.filename_hints
        )


@dataclass
class Backbone:
    """A vision encoder with its weights and all it takes to use and to write it.

    Attributes:
        encoder: The module with exactly the pretrained keys.
        image_size: Side length of its input in pixels.
        num_heads: Number of attention heads; cannot be read from weights, hence kept.
        provenance: Where the weights come from; plain values only, written into saved files.
        projection: ``weight`` (text width, D) and ``bias`` of the projection to the text width
            that came with a published refined checkpoint; empty where there was none.
        notes: What a user should know of how the file was read: which of several networks was
            taken, or that it was trained with images of another size.
    """

    spec: BackboneSpec
    encoder: nn.Module
    image_size: int
    num_heads: int
    provenance: dict[str, str | int | float | list | dict] = field(default_factory=dict)
    projection: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Width D of a token."""
        return int(self.encoder.embed_dim)  # type: ignore[arg-type]

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks in their order."""
        return list(self.encoder.blocks)  # type: ignore[arg-type]

    @property
    def patch_size(self) -> int:
        """Side length of a patch in pixels."""
        embedding: Any = getattr(self.encoder, "patch_embed", self.encoder)  # MIRAGE says it itself
        return int(embedding.patch_size[0])

    @property
    def size_name(self) -> str:
        """The size's usual name, ``ViT-L/16``, or its numbers where it has none."""
        for name, (width, depth) in VIT_SIZES.items():
            if (width, depth) == (self.width, len(self.blocks)):
                return f"{name}/{self.patch_size}"
        return f"ViT ({self.width} wide, {len(self.blocks)} deep, patch {self.patch_size})"

    @property
    def has_published_size(self) -> bool:
        """Whether there is a published model of this size, or one of any size."""
        return not self.spec.sizes or self.size_name in self.spec.sizes

    @property
    def title(self) -> str:
        """What the model is: a small ViT in RETFound's layout is no RETFound."""
        if not self.has_published_size:
            return f"a {self.size_name} in {self.spec.name}'s layout"
        if len(self.spec.sizes) < 2:
            return self.spec.title
        return f"{self.spec.title.partition(',')[0]}, {self.size_name}"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image as the encoder takes it."""
        return self.spec.in_chans, self.image_size, self.image_size

    @property
    def patches(self) -> int:
        """Number N of patch tokens."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def norm(self) -> nn.Module | None:
        """The encoder's final norm, None where it has none (MIRAGE)."""
        return getattr(self.encoder, "norm", None)

    def tokens(self, images: Tensor) -> ImageTokens:
        """Run the encoder on (B, C, H, W) normalised images, H = W = ``image_size``.

        Raises:
            InputError: If the images have another shape.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != self.input_shape:
            raise InputError(
                f"{self.spec.name} cannot take a batch of this shape",
                got=tuple(images.shape),
                expected="(B, {}, {}, {})".format(*self.input_shape),
                remedy="prepare images with retfiner.vision.evaluation_transform(backbone)",
            )
        return self.spec.architecture.tokens(self.encoder, images)

    def fusion_tokens(self, images: Tensor) -> Tensor:
        """Give the tokens the text side attends to, (B, 1 + registers + N, D), CLS first.

        They are taken after the final norm where the spec's ``text_norm`` says so.
        """
        tokens = torch.cat(self.tokens(images), dim=1)
        return self.norm(tokens) if self.spec.text_norm and self.norm is not None else tokens

    def features(self, images: Tensor, method: str | None = None) -> Tensor:
        """Give the frozen features a linear probe is trained on.

        ``method`` is one of ``features.METHODS``, None or ``concat`` the backbone's own; from
        (B, C, H, W) normalised images come (B, F), F as ``feature_width(self.width, method)`` says.
        """
        if method is None or method == "concat":
            method = self.spec.representation
        return probing_features(self.tokens(images), self.norm, method)
