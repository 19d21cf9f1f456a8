"""The numbers of a collection: lengths of reports, sizes and gray values of images, patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retfiner.data.after_cut import SPECIAL_TOKENS, CutReports
from retfiner.data.pair_table import PairRow
from retfiner.text.words import PARTED

MOST_LISTED = 8
"""Sizes and repeated reports that are listed at most."""
BINS = 25
COVERED = 0.95


@dataclass(frozen=True)
class TextStatistics:
    """Lengths of reports, in ``WordPieces`` with [CLS] and [SEP] or in ``words``, and repetitions.

    Lengths above ``limit`` are cut: --max_text_tokens, in words two less, since a word is at least
    one WordPiece. ``histogram`` counts reports by length; ``cut`` is the share that is cut, of
    words at least this share, and ``covering`` the smallest limit that cuts at most one report in
    twenty. ``repeated`` is the share that repeats an earlier report word for word, ``alike`` how
    many different reports are the same as another once they are cut; ``frequent`` has
    those that occur most often, more than once each, and how often.
    """

    unit: str
    limit: int
    histogram: dict[int, int]
    median: float
    longest: int
    cut: float
    covering: int
    distinct: int
    repeated: float
    alike: int
    frequent: list[tuple[str, int]]


@dataclass(frozen=True)
class ImageStatistics:
    """Sizes and gray values of the different images.

    ``sizes`` are the most frequent heights and widths with their numbers of images;
    ``unknown_sizes`` only decoding would tell. ``brightness`` counts the mean gray values in
    :data:`BINS` equal parts of [0, 1]; it is empty where images were not decoded.
    """

    distinct: int
    sizes: list[tuple[int, int, int]]
    other_sizes: int
    unknown_sizes: int
    brightness: list[int]


@dataclass(frozen=True)
class PatientStatistics:
    """Images per patient; ``histogram`` says how many patients have each number of images."""

    patients: int
    histogram: dict[int, int]
    median: float
    most: int


def describe_reports(
    reports: Sequence[str],
    cut: CutReports | None,
    max_tokens: int,
    withheld: frozenset[str] = frozenset(),
) -> TextStatistics:
    """Count lengths and repetitions of reports, at least one, cut at so many WordPieces.

    Words are counted where no tokenizer made a ``cut``; reports in ``withheld`` are not listed.
    """
    unit, limit = "WordPieces", max_tokens
    if cut is None:
        unit, limit = "words", max_tokens - SPECIAL_TOKENS
        lengths = np.array([len(PARTED.findall(report)) for report in reports])
    else:
        lengths = cut.lengths
    counts = Counter(reports)
    frequent = [(text, n) for text, n in counts.most_common() if n > 1 and text not in withheld]
    return TextStatistics(
        unit=unit,
        limit=limit,
        histogram=_histogram(lengths),
        median=float(np.median(lengths)),
        longest=int(lengths.max()),
        cut=float((lengths > limit).mean()),
        covering=int(np.quantile(lengths, COVERED, method="inverted_cdf")),
        distinct=len(counts),
        repeated=1 - len(counts) / len(reports),
        alike=0 if cut is None else cut.alike,
        frequent=frequent[:MOST_LISTED],
    )


def describe_images(rows: Sequence[PairRow]) -> ImageStatistics:
    """Count sizes and collect gray values of the rows that are used, each image once."""
    images = {row.identity: row.facts for row in rows if row.facts is not None}.values()
    means = [facts.intensity.mean for facts in images if facts.intensity is not None]
    sizes = Counter(facts.size for facts in images if facts.size is not None)
    listed = sizes.most_common(MOST_LISTED)
    return ImageStatistics(
        distinct=len(images),
        sizes=[(height, width, n) for (height, width), n in listed],
        other_sizes=sizes.total() - sum(n for _, n in listed),
        unknown_sizes=len(images) - sizes.total(),
        brightness=np.histogram(means, BINS, (0.0, 1.0))[0].tolist() if means else [],
    )


def describe_patients(rows: Sequence[PairRow]) -> PatientStatistics | None:
    """Count images per patient in the rows that are used; None where no patients are known."""
    images = {(row.patient, row.image) for row in rows if row.patient is not None}
    if not images:
        return None
    per_patient = np.array(list(Counter(patient for patient, _ in images).values()))
    return PatientStatistics(
        patients=len(per_patient),
        histogram=_histogram(per_patient),
        median=float(np.median(per_patient)),
        most=int(per_patient.max()),
    )


def _histogram(numbers: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(numbers, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))
