"""Every setting of ``segment.py``: one field, one flag, one line of ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retfiner.common.cli import flag
from retfiner.common.errors import InputError
from retfiner.common.numbers import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

Head = Literal["linear", "conv"]


@dataclass(frozen=True, kw_only=True)
class InputSettings:
    """Models and data."""

    weights: list[str] = flag("models, the first the one to compare with", metavar="NAME=PATH")
    data_root: Path = flag("folder of the data sets", Path("_data"))
    data_set: list[str] = flag(
        "data sets, each <data_root>/<name>/{train,val,test}/{bscan,semseg}/; by default all", []
    )
    image_size: PositiveInt | None = flag("image side in pixels; by default the backbone's", None)


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """Head."""

    head: Head = flag(
        "conv: three convolutions, between which the map is enlarged fourfold; linear: one layer on"
        " each patch token",
        "conv",
    )
    epochs: PositiveInt = flag("epochs; the half-cosine ends at the last", 50)
    learning_rate: PositiveFloat = flag("peak learning rate of AdamW", 1e-3)
    weight_decay: NonNegativeFloat = flag("weight decay of AdamW", 1e-4)
    batch_size: PositiveInt = flag("images in a batch", 16)
    seed: list[NonNegativeInt] = flag("seeds, each of them a head", [0, 1, 2])


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """Results and hardware."""

    output: Path = flag("folder of table and figure", Path("__segmentation"))
    feature_store: Path = flag("folder of the stored features", Path("_features"))
    examples: PositiveInt = flag("test images in the figure", 4)
    device: str = flag("cpu, cuda, mps, or auto", "auto")
    num_workers: NonNegativeInt | None = flag(
        "processes that read images; by default one a core, or four on a CPU, at most 8", None
    )
    inference_batch_size: PositiveInt = flag("images the encoder sees at once", 64)


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(OutputSettings, HeadSettings, InputSettings):
    """Settings of ``segment.py``; each class above is a heading of its ``--help``."""

    def __post_init__(self) -> None:
        """Raise an InputError where models or seeds are not told apart."""
        names = [word.partition("=")[0] for word in self.weights]
        if not names or not all("=" in word for word in self.weights) or "" in names:
            raise InputError(
                "--weights takes NAME=PATH for each model",
                got=" ".join(self.weights) or "none",
                expected="base=RETFound.pth refined=refined.pth",
            )
        for name, values in (("weights", names), ("seed", self.seed)):
            if len(set(values)) != len(values):
                raise InputError(f"--{name} names something twice", got=" ".join(map(str, values)))

    @property
    def models(self) -> dict[str, Path]:
        """The checkpoints by their names."""
        words = (word.partition("=") for word in self.weights)
        return {name: Path(path) for name, _, path in words}
