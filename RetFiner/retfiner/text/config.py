"""Every setting of ``build_text_encoder.py``: one field, one flag, one line of ``--help``."""

from dataclasses import dataclass
from pathlib import Path

from retfiner.common.cli import flag
from retfiner.common.errors import InputError
from retfiner.common.numbers import NonNegativeInt
from retfiner.text.folder import DEFAULT_TEXT_ENCODER, require_source


@dataclass(frozen=True)
class TextEncoderConfig:
    """What to build a text encoder from, and where to put it."""

    source: str = flag("a BERT: Hugging Face hub id, or a folder", "bert-base-uncased")
    output: Path = flag("folder for the BERT with cross-attention", DEFAULT_TEXT_ENCODER)
    from_reports: Path | None = flag(
        "CSV: make a small BERT with a vocabulary of its own instead", None
    )
    report_column: str = flag("column of that CSV with the report", "report")
    vocab_size: int = flag("most WordPieces of that vocabulary", 2000)
    width: int = flag("width of the small BERT, a multiple of 64", 192)
    layers: int = flag("layers of the small BERT", 4)
    epochs: NonNegativeInt = flag("passes over the reports that the small BERT learns from", 15)
    seed: int = flag("seed of the weights that have to be made up, and of what is masked", 0)

    def require_paths(self) -> None:
        """Refuse a source that is not there and an output that is, without torch.

        Raises:
            InputError: If the one or the other is so.
        """
        if self.output.is_file() or (self.output.exists() and any(self.output.iterdir())):
            raise InputError(
                f"{self.output} exists and is no empty folder",
                remedy="give another --output, or remove it first",
            )
        if self.from_reports is None:
            require_source(self.source)

    def __post_init__(self) -> None:
        """Check the small BERT's size.

        Raises:
            InputError: If it cannot be built.
        """
        if self.width < 64 or self.width % 64:
            raise InputError("--width cannot be used", got=self.width, expected="a multiple of 64")
        if self.layers < 1:
            raise InputError("--layers cannot be used", got=self.layers, expected="at least 1")
        if self.vocab_size < 64:
            raise InputError(
                "--vocab_size is too small", got=self.vocab_size, expected="at least 64"
            )
