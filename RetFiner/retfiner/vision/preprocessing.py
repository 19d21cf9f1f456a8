"""From gray values to the tensor a backbone takes.

Transforms are plain objects without state: they can be sent to worker processes, and whatever is
random comes from the generator passed along. ``images/`` reads the files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

from retfiner.common.devices import send
from retfiner.common.errors import InputError
from retfiner.vision.images.scaling import to_luma
from retfiner.vision.spec import Backbone, BackboneSpec


@dataclass(frozen=True)
class ImageTransform:
    """What every transform does: resize, repeat over channels, normalise.

    Attributes:
        image_size: Side length of the result in pixels; the aspect ratio is not kept.
        in_chans: Number of channels, all equal before the normalisation.
        min_max: Whether the image's intensities are first stretched to [0, 1] (MIRAGE).
        interpolation: How images are resized. Bicubic ones are clamped to [0, 1], beyond which its
            negative weights reach.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    in_chans: int = 3
    min_max: bool = False
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def resized(self, image: np.ndarray) -> Tensor:
        """Resize (H, W) in [0, 1] to (1, S, S), or (H, W, 3) to (3, S, S), with antialiasing.

        For a backbone of one channel, colours become luma.

        Raises:
            InputError: If the array is neither.
        """
        is_colour = image.ndim == 3 and image.shape[-1] == 3
        if not (image.ndim == 2 or is_colour) or 0 in image.shape:
            raise InputError(
                "An image must be gray, or RGB", got=image.shape, expected="(H, W) or (H, W, 3)"
            )
        if is_colour:
            image = to_luma(image) if self.in_chans == 1 else image.transpose(2, 0, 1)
        gray = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
        gray = gray[None] if gray.ndim == 3 else gray[None, None]
        if self.min_max:
            low, high = gray.min(), gray.max()
            # A constant image has nothing to stretch and stays as it is.
            gray = (gray - low) / (high - low) if high > low else gray
        size = (self.image_size, self.image_size)
        mode = self.interpolation
        gray = F.interpolate(gray, size, mode=mode, antialias=True, align_corners=False)[0]
        return gray.clamp(0, 1) if mode == "bicubic" else gray

    def normalised(self, gray: Tensor) -> Tensor:
        """Repeat (1, S, S) over the channels, or take (C, S, S), and normalise each."""
        mean = torch.tensor(self.mean)[:, None, None]
        std = torch.tensor(self.std)[:, None, None]
        return (gray.expand(self.in_chans, -1, -1) - mean) / std


@dataclass(frozen=True)
class EvaluationTransform(ImageTransform):
    """Resize and normalise, nothing random."""

    def __call__(self, image: np.ndarray) -> Tensor:
        """Turn (H, W) in [0, 1], as ``read_image`` gives it, into (C, S, S) float32.

        Raises:
            InputError: If the array is not (H, W).
        """
        return self.normalised(self.resized(image))


@dataclass(frozen=True)
class Augmentation:
    """The numbers of the training augmentation, by default those of the probing protocol.

    Attributes:
        flip: Probability of a horizontal flip.
        intensity: Intensities are multiplied by a draw from [1 - x, 1 + x] and clamped.
        affine: Probability of an affine map, bilinear and filled with 0.
        rotation: Largest angle in degrees.
        translation: Largest shift as a share of the side.
        scale: The scale is drawn from [1 - x, 1 + x].
        shear: Largest horizontal shear in degrees.
    """

    flip: float = 0.5
    intensity: float = 0.2
    affine: float = 0.9
    rotation: float = 10.0
    translation: float = 0.1
    scale: float = 0.1
    shear: float = 5.0


@dataclass(frozen=True)
class AugmentedTransform(ImageTransform):
    """Resize, augment, normalise."""

    augmentation: Augmentation = Augmentation()

    def __call__(self, image: np.ndarray, generator: torch.Generator) -> Tensor:
        """Turn (H, W) in [0, 1], as ``read_image`` gives it, into (C, S, S) float32.

        Each call draws equally many numbers from the generator.
        """
        return self.augmented(self.resized(image), generator)

    def augmented(self, gray: Tensor, generator: torch.Generator) -> Tensor:
        """Augment and normalise (1, S, S) that :meth:`resized` gave, which many views can share."""
        draws = torch.rand(8, generator=generator, dtype=torch.float64)
        return self.augmented_by(gray, draws.tolist())

    def augmented_by(self, gray: Tensor, draws: list[float]) -> Tensor:
        """Do what :meth:`augmented` does, with given draws from U(0, 1)."""
        by = self.augmentation
        flip, gain, apply, angle, right, down, scale, shear = draws
        if flip < by.flip:
            gray = gray.flip(-1)
        gray = (gray * _around(1, by.intensity, gain)).clamp(0, 1)
        if apply < by.affine:
            reach = by.translation * self.image_size
            gray = tvf.affine(
                gray,
                angle=_around(0, by.rotation, angle),
                translate=[_around(0, reach, right), _around(0, reach, down)],
                scale=_around(1, by.scale, scale),
                shear=[_around(0, by.shear, shear), 0.0],
                interpolation=InterpolationMode.BILINEAR,
                fill=[0.0],
            )
        return self.normalised(gray)


def augment_batch(
    images: Tensor,
    black: Tensor,
    white: Tensor,
    generator: torch.Generator,
    total: int | None = None,
    first: int = 0,
    augmentation: Augmentation | None = None,
    sizes: Sequence[int] | None = None,
) -> Tensor:
    """Augment normalised images where they are, each in its own way, those of an exam alike.

    The same map as :class:`AugmentedTransform` for each image, without a loop over them. Numbers
    are drawn on the CPU for the batch of all processes, of which each takes its rows: images are
    the same however many processes there are, and on every device.

    Args:
        images: (B, C, S, S), normalised.
        black: (C,) what 0 became by the normalisation.
        white: (C,) what 1 became.
        generator: One of the CPU's.
        total: Images of all processes; by default B.
        first: Place of the first of the B among them.
        augmentation: Its numbers; by default those of the probing protocol.
        sizes: How many images each exam has, where ``total`` and ``first`` count exams.
    """
    by, size = augmentation or Augmentation(), len(images if sizes is None else sizes)
    draws = torch.rand(size if total is None else total, 8, generator=generator)
    own = draws[first : first + size]
    own = own if sizes is None else own.repeat_interleave(torch.tensor(sizes), 0)
    flip, gain, apply, angle, right, down, scale, shear = own.T
    turn = torch.deg2rad((2 * angle - 1) * by.rotation) * (apply < by.affine)
    slant = torch.tan(torch.deg2rad((2 * shear - 1) * by.shear)) * (apply < by.affine)
    zoom = torch.where(apply < by.affine, 1 + (2 * scale - 1) * by.scale, 1.0)
    shift = (2 * torch.stack([right, down], 1) - 1) * 2 * by.translation
    shift = shift * (apply < by.affine)[:, None]
    cos, sin = turn.cos(), turn.sin()
    # From places in the result to places in the image, both in [-1, 1], as torchvision's affine.
    linear = torch.stack([cos - sin * slant, cos * slant + sin, -sin, cos], 1).view(-1, 2, 2)
    linear = linear / zoom[:, None, None]
    offset = -(linear @ shift[:, :, None])
    linear[:, 0] *= torch.where(flip < by.flip, -1.0, 1.0)[:, None]  # the image is flipped first
    offset[:, 0] *= torch.where(flip < by.flip, -1.0, 1.0)[:, None]
    gain = 1 + (2 * gain - 1) * by.intensity
    maps, gain, low, high = (
        send(values.to(images.dtype), images.device)
        for values in (torch.cat([linear, offset], 2), gain, black, white)
    )
    low, high = low[:, None, None], high[:, None, None]
    gray = (((images - low) / (high - low)) * gain[:, None, None, None]).clamp(0, 1)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    return F.grid_sample(gray, grid, align_corners=False) * (high - low) + low


def evaluation_transform(backbone: Backbone | BackboneSpec) -> EvaluationTransform:
    """Make the transform for validation, test and feature extraction."""
    spec = backbone.spec if isinstance(backbone, Backbone) else backbone
    settings = spec.mean, spec.std, spec.in_chans, spec.min_max
    return EvaluationTransform(backbone.image_size, *settings)


def augmented_transform(
    backbone: Backbone | BackboneSpec, augmentation: Augmentation | None = None
) -> AugmentedTransform:
    """Make the transform for training."""
    settings = vars(evaluation_transform(backbone))
    return AugmentedTransform(**settings, augmentation=augmentation or Augmentation())


def _around(centre: float, reach: float, draw: float) -> float:
    """Map a draw from U(0, 1) to U(centre - reach, centre + reach)."""
    low, high = centre - reach, centre + reach
    return low + (high - low) * draw
