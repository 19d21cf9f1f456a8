"""The shared room: backbones, their checkpoints and their preprocessing.

Both stages, refinement and linear probing, take what depends on the backbone from here and from
nowhere else. This room imports third parties and ``retfiner.common`` only. To add a backbone,
write its file and a line in :data:`retfiner.vision.backbones.BACKBONES`.

Names are imported when they are first used: whoever only checks a table need not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retfiner.vision.backbones import BACKBONES, resolve_backbone, spec_named
    from retfiner.vision.checkpoint import (
        backbone_from_state,
        load_backbone,
        read_checkpoint,
        save_backbone,
    )
    from retfiner.vision.checkpoint_file import RawCheckpoint
    from retfiner.vision.features import (
        METHODS,
        PATCH_TOKENS,
        ImageTokens,
        feature_width,
        probing_features,
    )
    from retfiner.vision.images import ImageAddress, count_images, iter_images, read_image
    from retfiner.vision.preprocessing import (
        Augmentation,
        AugmentedTransform,
        EvaluationTransform,
        augmented_transform,
        evaluation_transform,
    )
    from retfiner.vision.spec import Backbone, BackboneSpec

__all__ = [
    "BACKBONES",
    "METHODS",
    "PATCH_TOKENS",
    "Augmentation",
    "AugmentedTransform",
    "Backbone",
    "BackboneSpec",
    "EvaluationTransform",
    "ImageAddress",
    "ImageTokens",
    "RawCheckpoint",
    "augmented_transform",
    "backbone_from_state",
    "count_images",
    "evaluation_transform",
    "feature_width",
    "iter_images",
    "load_backbone",
    "probing_features",
    "read_checkpoint",
    "read_image",
    "resolve_backbone",
    "save_backbone",
    "spec_named",
]

_FILES = (
    "images", "checkpoint_file", "spec", "features", "preprocessing", "backbones", "checkpoint"
)  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a name of ``__all__`` from the file that holds it."""
    if name in __all__:
        for file in _FILES:
            module = import_module(f"retfiner.vision.{file}")
            if name in vars(module):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
