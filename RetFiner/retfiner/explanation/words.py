"""From WordPieces back to the words that a reader sees."""

from __future__ import annotations

import re
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from retfiner.common.errors import InputError
from retfiner.text.words import IDEOGRAPHS, KANA

_EDGES = ".,;:!?()[]{}\"'`„“”‚‘’«»。，、；：！？（）【】《》「」"
_SHOWN = re.compile(rf"[{IDEOGRAPHS}]|[{KANA}]+|[^\s{IDEOGRAPHS}{KANA}]+")


class Word(NamedTuple):
    """A word of a report.

    Attributes:
        text: The word as written, without the punctuation around it.
        start: Where it begins in the report, in characters.
        end: Where it ends, the first character after it.
        pieces: Places of its WordPieces in the tokenised report; empty where the report was cut
            before it.
    """

    text: str
    start: int
    end: int
    pieces: tuple[int, ...]


def words_of(tokenizer: PreTrainedTokenizerBase, report: str, max_tokens: int) -> list[Word]:
    """List the words of a report cut at ``max_tokens``, [CLS] and [SEP] among them.

    What white space separates is a word (``full-thickness``, ``1.2``), and so is each Chinese
    character and each run of kana; pieces that are nothing but punctuation belong to none.

    Raises:
        InputError: If the tokenizer does not say where its pieces come from.
    """
    if not tokenizer.is_fast:
        raise InputError(
            "The tokenizer does not say where its WordPieces come from",
            got=type(tokenizer).__name__,
            expected="a fast tokenizer (a folder with tokenizer.json)",
        )
    encoded = tokenizer(report, truncation=True, max_length=max_tokens, return_offsets_mapping=True)
    spans = encoded["offset_mapping"]
    found = []
    for match in _SHOWN.finditer(report):
        core = match.group().strip(_EDGES)
        if not any(map(str.isalnum, core)):
            continue
        start = match.start() + match.group().index(core)
        end = start + len(core)
        pieces = tuple(
            place
            for place, (first, last) in enumerate(spans)
            if first < end and start < last and any(map(str.isalnum, report[first:last]))
        )
        found.append(Word(core, start, end, pieces))
    return found
