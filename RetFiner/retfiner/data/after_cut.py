"""What is left of reports when they are cut at the number of WordPieces that training reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retfiner.common.errors import InputError
from retfiner.common.progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 2048
SPECIAL_TOKENS = 2
"""[CLS] and [SEP], which count towards the cut."""
MAX_ALIKE = 0.3
FEWEST_ALIKE = 4
"""Reports of one text that few pairs may have by chance."""
FEWEST_LEFT = 0.3
"""Share of the distinct reports that the cut has to leave, whichever become one."""
MOST_UNKNOWN = 0.5
"""Share of unknown WordPieces from which on a text cannot be learned from."""
MOST_UNREAD = 0.2
"""Share of the reports that may be mostly unknown, as some of another language."""


@dataclass(frozen=True)
class CutReports:
    """What a tokenizer makes of N reports, and what the cut leaves of it.

    Attributes:
        limit: WordPieces after which reports are cut, [CLS] and [SEP] counted.
        lengths: (N,) WordPieces before the cut, [CLS] and [SEP] counted.
        distinct: How many reports differ by their WordPieces.
        alike: How many of these are the same as another one after the cut.
        largest: How many of them become one and the same text.
        texts: How many different texts are left.
        unknown: Share of the distinct reports' WordPieces, after the cut, that are [UNK].
        unread: Share of the distinct reports of which more than half are.
    """

    limit: int
    lengths: NDArray[np.int64]
    distinct: int
    alike: int
    largest: int
    texts: int
    unknown: float
    unread: float

    @property
    def cut(self) -> int:
        """How many reports are cut."""
        return int((self.lengths > self.limit).sum())


def cut_reports(
    tokenizer: PreTrainedTokenizerBase, reports: Sequence[str], max_tokens: int
) -> CutReports:
    """Cut reports, at least one, as training does, and compare what is left."""
    unique = list(dict.fromkeys(reports))
    length: dict[str, int] = {}
    wholes: dict[int, int] = {}  # the cut report of each whole one, by hashes of their ids
    unread = unknown = words = 0
    with progress("reading reports", len(unique), "report") as bar:
        for start in range(0, len(unique), BATCH):
            texts = unique[start : start + BATCH]
            encoded = tokenizer(texts, add_special_tokens=True, truncation=False, verbose=False)
            for text, ids in zip(texts, encoded["input_ids"], strict=True):
                length[text] = len(ids)
                cut = ids[1 : min(len(ids), max_tokens) - 1]
                wholes[hash(tuple(ids))] = hash(tuple(cut))
                missed = cut.count(tokenizer.unk_token_id)
                unread += 2 * missed > len(cut)
                unknown += missed
                words += len(cut)
            bar.update(len(texts))
    sizes = Counter(wholes.values())
    return CutReports(
        limit=max_tokens,
        lengths=np.array([length[report] for report in reports]),
        distinct=len(wholes),
        alike=sum(size for size in sizes.values() if size > 1),
        largest=max(sizes.values()),
        texts=len(sizes),
        unknown=unknown / max(1, words),
        unread=unread / len(unique),
    )


def require_readable(found: CutReports, max_alike: float) -> None:
    """Make sure that reports can be learned from as they are cut.

    Raises:
        InputError: If all reports say the same, if the tokenizer does not know most of their words,
            or if more than a share of ``max_alike`` of the distinct reports become one and the same
            text by the cut; below 1, also if less than :data:`FEWEST_LEFT` of them stay different.
    """
    require_different(found.distinct)
    if found.unknown > MOST_UNKNOWN or found.unread > MOST_UNREAD:
        raise InputError(
            "the text encoder does not know the words of the reports",
            got=f"{100 * found.unknown:.0f} % of the WordPieces are unknown to it ([UNK]); of"
            f" {100 * found.unread:.0f} % of the reports, more than half are",
            expected="a vocabulary of the reports' language",
            remedy="a text encoder of that language, by build_text_encoder.py --source NAME, or one"
            " whose words come from your table, by --from_reports",
        )
    joined = f"{found.largest} of {found.distinct} different reports are one and the same text"
    is_joined = found.largest > max(FEWEST_ALIKE, max_alike * found.distinct)
    lost = found.distinct - found.texts
    if (
        not is_joined
        and max_alike < 1
        and lost > max(FEWEST_ALIKE, (1 - FEWEST_LEFT) * found.distinct)
    ):
        is_joined, joined = True, f"{found.distinct} different reports are {found.texts} texts"
    if is_joined:
        raise InputError(
            "reports are the same once they are cut, and nothing tells their images apart",
            got=f"{joined} in their first {found.limit} WordPieces",
            expected=f"at most {100 * max_alike:g} % of them (--max_alike {max_alike:g})",
            remedy="--strip_common takes off what reports begin with; a larger --max_text_tokens"
            " reads further; --max_alike 1 trains on them as they are",
        )


def require_different(distinct: int) -> None:
    """Make sure that there is something to contrast.

    Raises:
        InputError: If all reports are one.
    """
    if distinct < 2:
        raise InputError(
            "all reports say the same, and nothing tells their images apart",
            got="one text in every row",
            expected="at least two different reports",
            remedy="--report_column names the column of the reports",
        )


def unknown_note(found: CutReports) -> str | None:
    """Say how much of the reports is unknown, where it is more than a word here and there."""
    if found.unknown <= 0.05:
        return None
    return (
        f"{100 * found.unknown:.0f} % of the WordPieces are unknown to the text encoder: one of the"
        " reports' language, or with a vocabulary of your own (--from_reports), reads more"
    )
