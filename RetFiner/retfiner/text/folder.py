"""Whether a folder can hold a text encoder at all, without torch."""

from __future__ import annotations

from pathlib import Path

from retfiner.common.errors import InputError

DEFAULT_TEXT_ENCODER = (
    Path(__file__).parents[3].resolve()
    / "pretrained_weights"
    / "BERT"
    / "bert-base-uncased-crossattn"
)
"""Where ``build_text_encoder.py`` writes to and ``train.py`` looks, if not told otherwise."""


def require_text_encoder(folder: Path) -> None:
    """Refuse early what is no text encoder.

    Args:
        folder: A Hugging Face folder.

    Raises:
        InputError: If there is no ``config.json`` in it.
    """
    if not (folder / "config.json").is_file():
        raise InputError(
            f"no text encoder can be loaded from {folder}",
            got="a folder without config.json" if folder.is_dir() else "no such folder",
            expected="a folder made by build_text_encoder.py",
            remedy="python build_text_encoder.py --source <hub id or folder> --output <folder>, "
            "or name another with --text_encoder",
        )
