"""The training augmentation with every number of it adjustable.

At its default numbers it is :class:`retfiner.vision.AugmentedTransform`, pixel for pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

from retfiner.vision import Backbone, evaluation_transform
from retfiner.vision.preprocessing import ImageTransform


@dataclass(frozen=True)
class Augmentation:
    """The numbers of the augmentation.

    Attributes:
        flip: Probability of a horizontal flip.
        intensity: Intensities are multiplied by a draw from [1 - x, 1 + x] and clamped.
        affine: Probability of an affine map.
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
class AdjustableTransform(ImageTransform):
    """Resize, augment, normalise.

    Attributes:
        augmentation: The numbers.
    """

    augmentation: Augmentation = field(default_factory=Augmentation)

    def __call__(self, image: np.ndarray, generator: torch.Generator) -> Tensor:
        """Transform one image.

        Args:
            image: (H, W) in [0, 1].
            generator: Where the random numbers come from; each call draws equally many.

        Returns:
            (C, ``image_size``, ``image_size``) float32.
        """
        return self.augmented(self.resized(image), generator)

    def augmented(self, gray: Tensor, generator: torch.Generator) -> Tensor:
        """Augment and normalise what :meth:`resized` gave, which many views can share.

        Args:
            gray: (1, ``image_size``, ``image_size``) in [0, 1]; left as it is.
            generator: Where the random numbers come from.

        Returns:
            (C, ``image_size``, ``image_size``) float32.
        """
        by = self.augmentation
        draws = torch.rand(8, generator=generator, dtype=torch.float64).tolist()
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


def adjustable_transform(backbone: Backbone, augmentation: Augmentation) -> AdjustableTransform:
    """Make the training transform.

    Args:
        backbone: Whose image size, mean, std and channels to use.
        augmentation: The numbers.
    """
    clean = evaluation_transform(backbone)
    return AdjustableTransform(
        clean.image_size, clean.mean, clean.std, clean.in_chans, clean.min_max, augmentation
    )


def _around(centre: float, reach: float, draw: float) -> float:
    """Map a draw from U(0, 1) to U(centre - reach, centre + reach)."""
    low, high = centre - reach, centre + reach
    return low + (high - low) * draw
