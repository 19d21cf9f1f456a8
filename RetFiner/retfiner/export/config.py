"""Every setting of ``get_vision_backbone_for_linprobing.py``: one field, one flag."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retfiner.common.cli import flag
from retfiner.common.commands import REPOSITORY
from retfiner.common.errors import InputError

WEIGHTS_FOLDER = REPOSITORY / "linear_probing" / "_weights"

Format = Literal["base", "safetensors", "timm", "hf", "onnx"]


@dataclass(frozen=True)
class ExtractConfig:
    """Settings of ``get_vision_backbone_for_linprobing.py``."""

    path_to_model: Path = flag("checkpoint of a refinement run, or a published RetFiner file")
    format: Format = flag(
        "base: the base model's own layout (.pth); safetensors; timm: plain timm keys; hf: a folder"
        " for transformers; onnx",
        "base",
        metavar="NAME",
    )
    backbone: str = flag("name of the backbone, where the checkpoint does not say", "auto")
    image_size: int | None = flag("side of the input in pixels, where it does not say", None)
    output: Path | None = flag(
        "file (hf: folder) to write; by default in linear_probing/_weights", None
    )
    card: bool | None = flag("write a model card beside it; by default for hf only", None)
    results: Path | None = flag("Markdown for the card: table.md of report.py, for example", None)
    push: str | None = flag(
        "upload to the Hugging Face hub under this name, user/model; never done unasked", None
    )

    def __post_init__(self) -> None:
        """Check what does not go together.

        Raises:
            InputError: If a flag would have no effect.
        """
        if self.results is not None and not self.writes_card:
            raise InputError("--results has no effect without a card", remedy="add --card")
        if self.push is not None and self.format != "hf":
            raise InputError(
                "--push has no effect here", got=f"--format {self.format}", expected="--format hf"
            )

    @property
    def writes_card(self) -> bool:
        """Whether a model card is written."""
        return self.card if self.card is not None else self.format == "hf"

    @property
    def default_output(self) -> Path:
        """Named after the checkpoint and its run: ``best-model_<run>_bscan.pth``."""
        path = self.path_to_model.resolve()
        suffix = {"base": ".pth", "hf": "", "onnx": ".onnx"}.get(self.format, ".safetensors")
        return WEIGHTS_FOLDER / f"{path.stem}_{path.parent.name}_bscan{suffix}"
