"""How close written reports are to the true ones: in words, and in findings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from retfiner.evaluation.findings import FINDINGS, stated_findings

_TOKEN = re.compile(r"\w+|[^\w\s]")
METEOR = "meteor_exact_stem"


def split_words(text: str) -> list[str]:
    """Split a text into lower-case words and punctuation marks, for every score alike."""
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())


class _NoSynonyms:
    """Stands in for WordNet, which is a download: METEOR then matches words and stems alone."""

    def synsets(self, word: str) -> list[Any]:
        return []


class _Tokenizer:
    def tokenize(self, text: str) -> list[str]:
        return split_words(text)


def score_words(references: Sequence[str], written: Sequence[str]) -> dict[str, float]:
    """Compare texts word by word.

    Args:
        references: N true reports, whole.
        written: N reports that were written.

    Returns:
        ``bleu_1`` to ``bleu_4`` over the corpus (sacrebleu, its smoothing of zero counts),
        ``rouge_l`` (mean F1), and ``meteor_exact_stem``: METEOR (nltk) without its stage of
        synonyms. Each in [0, 1].
    """
    from nltk.stem import PorterStemmer
    from nltk.translate.meteor_score import single_meteor_score
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    left, right = [split_words(t) for t in references], [split_words(t) for t in written]
    joined = [" ".join(words) for words in right], [[" ".join(words) for words in left]]
    scores = {  # force: the texts are split into words, and nobody need be warned of it
        f"bleu_{n}": BLEU(max_ngram_order=n, tokenize="none", force=True)
        .corpus_score(*joined)
        .score
        / 100
        for n in (1, 2, 3, 4)
    }
    rouge = RougeScorer(["rougeL"], tokenizer=_Tokenizer())
    rouge_l = [
        rouge.score(true, ours)["rougeL"].fmeasure
        for true, ours in zip(references, written, strict=True)
    ]
    stemmer, none = PorterStemmer(), _NoSynonyms()
    meteor = [
        single_meteor_score(true, ours, stemmer=stemmer, wordnet=none) if ours else 0.0
        for true, ours in zip(left, right, strict=True)
    ]
    scores["rouge_l"] = sum(rouge_l) / len(rouge_l)
    scores[METEOR] = sum(meteor) / len(meteor)
    return scores


def score_findings(references: Sequence[str], written: Sequence[str]) -> dict[str, Any]:
    """Compare which findings the texts state, as :mod:`retfiner.evaluation.findings` reads them.

    Args:
        references: N true reports.
        written: N reports that were written.

    Returns:
        ``micro_f1`` over all findings, ``macro_f1`` over those that some true report states (None
        where there are none), ``same_findings`` (share of reports that state exactly the true
        ones), and for each finding precision, recall, F1 (None where undefined) and support.
    """
    true = [stated_findings(text) for text in references]
    ours = [stated_findings(text) for text in written]
    each: dict[str, dict[str, Any]] = {}
    counts: list[tuple[int, int, int]] = []
    for name in FINDINGS:
        hits = sum(name in a and name in b for a, b in zip(true, ours, strict=True))
        stated, support = sum(name in b for b in ours), sum(name in a for a in true)
        counts.append((hits, stated, support))
        each[name] = {
            "precision": hits / stated if stated else None,
            "recall": hits / support if support else None,
            "f1": 2 * hits / (stated + support) if stated + support else None,
            "support": support,
        }
    hits, stated, support = (sum(column) for column in zip(*counts, strict=True))
    present = [entry["f1"] for entry in each.values() if entry["support"]]
    return {
        "micro_f1": 2 * hits / (stated + support) if stated + support else None,
        "macro_f1": sum(present) / len(present) if present else None,
        "same_findings": sum(a == b for a, b in zip(true, ours, strict=True)) / len(true),
        "findings": each,
    }
