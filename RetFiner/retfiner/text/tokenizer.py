"""From reports to WordPiece ids, and a WordPiece vocabulary learned from reports."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import BertWordPieceTokenizer, Tokenizer
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BertTokenizerFast,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from retfiner.common.errors import InputError
from retfiner.text.folder import no_tokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class TokenizedReports(NamedTuple):
    """(B, L) WordPiece ids, padded to the longest, and their mask: 1 for a token, 0 for padding."""

    input_ids: Tensor
    attention_mask: Tensor


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerBase:
    """Load the tokenizer that lies beside a text encoder.

    Raises:
        InputError: If the folder holds no tokenizer, or one without a mask or padding token.
    """
    try:
        # Said explicitly: left open, transformers may ask on the terminal whether to run code.
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # what tokenizers raises for a damaged file, no less
        got = (str(error) or type(error).__name__).splitlines()[0]
        raise no_tokenizer(folder, got) from error
    # Where the vocabulary's file is missing, transformers makes a tokenizer that knows no word.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise no_tokenizer(folder, "no vocabulary")
    missing = [
        name
        for name in ("cls_token", "sep_token", "mask_token", "pad_token")
        if getattr(tokenizer, f"{name}_id") is None
    ]
    if missing:
        raise InputError(
            f"the tokenizer in {folder} cannot be used for masked modelling",
            got=f"no {', '.join(missing)}",
            expected="a BERT tokenizer with [CLS], [SEP], [MASK] and [PAD]",
        )
    return tokenizer


def tokenizer_as_text(tokenizer: PreTrainedTokenizerBase) -> dict[str, str] | None:
    """Put a tokenizer into plain text, for a checkpoint; None where it is no fast one.

    ``json`` is the content of its tokenizer.json, beside which stand its special tokens by name.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return None
    names = ("unk_token", "cls_token", "sep_token", "mask_token", "pad_token")
    special = {name: str(getattr(tokenizer, name)) for name in names}
    return {"json": tokenizer.backend_tokenizer.to_str(), **special}


def tokenizer_from_text(stored: Mapping[str, str]) -> PreTrainedTokenizerBase:
    """Make a tokenizer of what :func:`tokenizer_as_text` stored.

    Raises:
        InputError: If it is damaged.
    """
    try:
        special = {name: value for name, value in stored.items() if name != "json"}
        backend = Tokenizer.from_str(stored["json"])
        return PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    except Exception as error:  # as above
        raise InputError("the tokenizer in the checkpoint is damaged", got=error) from error


def as_report_list(texts: str | Iterable[str]) -> list[str]:
    """List one report or several, white space as in training.

    Raises:
        InputError: If there is none, or one is no text or has no words.
    """
    listed = [texts] if isinstance(texts, str) else list(texts)
    for text in listed:
        if not isinstance(text, str) or not text.strip():
            raise InputError("A report must be text with words", got=repr(text))
    if not listed:
        raise InputError("There is no report", got="an empty list", expected="at least one text")
    return [" ".join(text.split()) for text in listed]


def tokenize(
    tokenizer: PreTrainedTokenizerBase, reports: Sequence[str], max_tokens: int
) -> TokenizedReports:
    """Turn reports into ids, cut at ``max_tokens`` WordPieces with [CLS] and [SEP] counted."""
    encoded = tokenizer(list(reports), padding="longest", truncation=True, max_length=max_tokens)
    return TokenizedReports(
        torch.tensor(encoded["input_ids"]), torch.tensor(encoded["attention_mask"])
    )


def report_lengths(tokenizer: PreTrainedTokenizerBase, reports: Sequence[str]) -> list[int]:
    """Count the WordPieces of each report, [CLS] and [SEP] included, before any cut."""
    unique = list(dict.fromkeys(reports))
    backend = tokenizer(unique, add_special_tokens=True, truncation=False, verbose=False)
    length = {report: len(ids) for report, ids in zip(unique, backend["input_ids"], strict=True)}
    return [length[report] for report in reports]


def train_tokenizer(reports: Sequence[str], vocab_size: int) -> BertTokenizerFast:
    """Learn an uncased vocabulary of at most ``vocab_size`` WordPieces, special ones included.

    Accents stay: ``Drüsen`` are glands, ``Drusen`` are none. A Chinese character is a word.

    Raises:
        InputError: If there is no report to learn from.
    """
    if not any(report.strip() for report in reports):
        raise InputError("a vocabulary cannot be learned without text", got="no report with words")
    trainer = BertWordPieceTokenizer(lowercase=True, strip_accents=False)
    # Left to itself, the trainer numbers characters in the order of a hash map, another one in each
    # process, and ties between pieces fall accordingly. Numbered beforehand, they fall alike.
    texts = (trainer.normalizer.normalize_str(report) for report in reports)
    characters = sorted({character for text in texts for character in text if character.strip()})
    trainer.train_from_iterator(
        list(reports),
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[*SPECIAL_TOKENS, *characters, *(f"##{c}" for c in characters)],
    )
    return BertTokenizerFast(vocab=trainer.get_vocab(), do_lower_case=True, strip_accents=False)
