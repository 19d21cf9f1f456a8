"""Whether a folder can hold a text encoder at all, without torch."""

import re
from pathlib import Path

from retfiner.common.commands import REPOSITORY
from retfiner.common.errors import InputError

DEFAULT_TEXT_ENCODER = REPOSITORY / "pretrained_weights/BERT/bert-base-uncased-crossattn"
"""Where ``build_text_encoder.py`` writes to and ``train.py`` looks, if not told otherwise."""


def require_text_encoder(folder: Path) -> None:
    """Refuse early what is no text encoder.

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


def require_tokenizer(folder: Path) -> None:
    """Refuse early what can hold no tokenizer.

    Raises:
        InputError: If there is no such folder.
    """
    if not folder.is_dir():
        raise no_tokenizer(folder, "no such folder")


def no_tokenizer(folder: Path | str, got: str) -> InputError:
    """Make the error of a folder without a tokenizer."""
    return InputError(
        f"no tokenizer can be loaded from {folder}",
        got=got,
        expected="a Hugging Face folder with vocab.txt or tokenizer.json",
        remedy="python build_text_encoder.py --source <hub id or folder> --output <folder>",
    )


def require_source(source: str) -> None:
    """Refuse early a BERT that is neither a folder nor can be the id of one on the hub.

    Raises:
        InputError: If it is a path that leads nowhere.
    """
    if not Path(source).is_dir() and not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", source):
        raise no_bert(source, "no such folder")


def no_bert(source: str, got: str) -> InputError:
    """Make the error of a source that is no BERT."""
    return InputError(
        f"no text encoder can be loaded from {source}",
        got=got,
        expected="a Hugging Face hub id, or a folder with config.json and weights",
        remedy="python build_text_encoder.py --source <hub id or folder> --output <folder>",
    )
