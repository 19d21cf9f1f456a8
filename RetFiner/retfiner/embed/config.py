"""Every setting of ``embed.py``: one field, one flag, one line of ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retfiner.common.cli import flag
from retfiner.common.errors import InputError
from retfiner.common.numbers import NonNegativeInt, PositiveInt
from retfiner.config import Precision


@dataclass(frozen=True)
class SubjectSettings:
    """Model and images."""

    model: Path = flag("a backbone's weights, or the folder or best-model.ckpt of a refinement run")
    data: Path = flag("table with a column of images, folder of images and volumes, or one file")
    output: Path = flag("Parquet file for the vectors")
    space: Literal["features", "shared"] = flag(
        "features: what probes are trained on; shared: unit vectors that compare with reports",
        "features",
    )
    backbone: str = flag("name of the backbone, where weights do not tell; by default auto", "auto")
    image_column: str = flag("column with the image's path", "image")
    image_root: Path | None = flag(
        "folder the image paths are relative to; by default the table's", None
    )


@dataclass(frozen=True)
class WorkSettings:
    """Work."""

    part_size: PositiveInt = flag("images after which what is done is safe", 4096)
    devices: PositiveInt = flag("GPUs, or processes on a CPU, that share the work", 1)
    batch_size: PositiveInt = flag("images at a time", 64)
    device: str = flag("what torch calls it; auto takes a GPU where there is one", "auto")
    precision: Precision = flag("auto is bfloat16 where there is, less exact", "32-true")
    num_workers: NonNegativeInt | None = flag(
        "processes that read images, for each device; by default one a core, at most 8", None
    )
    overwrite: bool = flag("begin anew, whatever an earlier run has written", False)


@dataclass(frozen=True)
class EmbedConfig(WorkSettings, SubjectSettings):
    """Settings of ``embed.py``; each class above is a heading of its ``--help``."""

    def __post_init__(self) -> None:
        """Check what a type alone cannot say.

        Raises:
            InputError: If the output is no Parquet file by its name.
        """
        if self.output.suffix != ".parquet":
            raise InputError("--output is a Parquet file", got=self.output, expected="x.parquet")
