"""Every setting of ``pretrain_base.py``: one field, one flag, one line of ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retfiner.common.cli import flag
from retfiner.common.errors import InputError
from retfiner.common.numbers import PositiveFloat, PositiveInt
from retfiner.vision.images import list_image_files


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of ``pretrain_base.py``."""

    images: Path = flag("folder with images, searched at any depth; of volumes, every B-scan")
    output: Path = flag("checkpoint to write, as ../pretrained_weights/base.pth")
    image_size: PositiveInt = flag("side of the input image in pixels", 128)
    patch_size: PositiveInt = flag("side of a patch in pixels", 16)
    width: PositiveInt = flag("width of the ViT, a multiple of 64", 192)
    depth: PositiveInt = flag("blocks of the ViT", 4)
    epochs: PositiveInt = flag("passes over the images", 8)
    batch_size: PositiveInt = flag("images in a batch", 64)
    lr: PositiveFloat = flag("highest learning rate of AdamW, warmed up and annealed", 1e-3)
    seed: int = flag("seed of everything random", 0)

    @property
    def num_heads(self) -> int:
        """Attention heads: 64 wide as in ViTs, but four in one too narrow for three.

        With a single head of 64, contrast falls half as fast (``docs/evidence.md``).
        """
        return self.width // 64 if self.width >= 192 else 4

    def __post_init__(self) -> None:
        """Check what a type alone cannot say.

        Raises:
            InputError: If the sizes do not go together, or the output is no file.
        """
        if self.width % 64 or self.image_size % self.patch_size:
            raise InputError(
                "the ViT cannot be built",
                got=f"width {self.width}, {self.image_size} pixels, patches of {self.patch_size}",
                expected="a multiple of 64, and an image that is a multiple of the patch",
            )
        if self.output.suffix.lower() == ".safetensors" or self.output.is_dir():
            raise InputError(
                "--output cannot be used", got=self.output, expected="a file, for example base.pth"
            )


def image_files(folder: Path) -> list[Path]:
    """List the images of a folder, at any depth.

    Raises:
        InputError: If there are none.
    """
    paths = list_image_files(folder)
    if not paths:
        raise InputError(
            f"{folder} holds too few images",
            got=0 if folder.is_dir() else "no such folder",
            expected="at least 2",
        )
    return paths
