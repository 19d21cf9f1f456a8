"""How close written reports are to the true ones: in words, and in findings."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retfiner.evaluation.reports.findings import FINDINGS, are_english, stated_findings
from retfiner.text.words import WORD_OR_SIGN

METEOR = "meteor_exact_stem"


def score(references: Sequence[str], written: Sequence[str]) -> dict[str, Any]:
    """Score words and findings together."""
    return {**score_words(references, written), **score_findings(references, written)}


def split_words(text: str) -> list[str]:
    """Split a text into lower-case words and punctuation marks, for every score alike.

    Chinese and Japanese characters are a word each: no blanks part words there.
    """
    return WORD_OR_SIGN.findall(unicodedata.normalize("NFKC", text).lower())


class _NoSynonyms:
    """Stands in for WordNet, which is a download: METEOR then matches words and stems alone."""

    def synsets(self, word: str) -> list[Any]:
        return []


class _Tokenizer:
    def tokenize(self, text: str) -> list[str]:
        return split_words(text)


def score_words(references: Sequence[str], written: Sequence[str]) -> dict[str, float]:
    """Compare N written reports with the N true ones word by word.

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
    """Compare the findings that :mod:`retfiner.evaluation.reports.findings` reads in the texts.

    Returns:
        ``micro_f1`` over all findings, ``macro_f1`` over those that some true report states (None
        where there are none), ``same_findings`` (share of reports that state exactly the true
        ones), and for each finding precision, recall, F1 (None where undefined) and support. Where
        the true reports are in another language than the rules, there are none of these.
    """
    if not are_english(references):
        return {"micro_f1": None, "macro_f1": None, "same_findings": None, "findings": {}}
    from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

    true, ours = _indicators(references), _indicators(written)
    undefined: dict[str, Any] = {"zero_division": np.nan}
    scores = precision_recall_fscore_support(true, ours, **undefined)
    precision, recall, f1, support = (column.tolist() for column in scores)
    present = [value for value, n in zip(f1, support, strict=True) if n]
    return {
        "micro_f1": _defined(f1_score(true, ours, average="micro", **undefined)),
        "macro_f1": sum(present) / len(present) if present else None,
        "same_findings": float(accuracy_score(true, ours)),
        "findings": {
            name: {
                "precision": _defined(precision[place]),
                "recall": _defined(recall[place]),
                "f1": _defined(f1[place]),
                "support": support[place],
            }
            for place, name in enumerate(FINDINGS)
        },
    }


def _indicators(reports: Sequence[str]) -> NDArray[np.bool_]:
    """Say which findings (N, F) each of N reports states."""
    stated = [stated_findings(report) for report in reports]
    return np.array([[name in found for name in FINDINGS] for found in stated])


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
