"""Which part of a long report is read: its findings, or sentences drawn from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from retfiner.common.seeds import generator
from retfiner.data.pair_table import PairTable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ReportPart = Literal["all", "random_sentences", "findings"]

_KEPT = (
    "findings?|impressions?|conclusions?|assessment|interpretation|diagnos[ei]s|"
    "befund(?:e|ung)?|beurteilung|diagnosen?|zusammenfassung|résultats?|interprétation|"
    "hallazgos|impresión(?: diagnóstica)?|conclusión|diagnóstico|reperti|conclusioni|"
    "检查所见|所见|印象|诊断|结论|検査所見|所見|診断"
)
_DROPPED = (
    "indications?|clinical (?:information|history|data)|history|reason for (?:exam|examination)|"
    "technique|comparison|examination|exam|procedure|scan quality|quality|image quality|"
    "recommendations?|plan|anamnese|indikation|fragestellung|klinische angaben|technik|methode|"
    "vergleich|untersuchung|qualität|empfehlung|procedere|indicación|técnica|comparación|"
    "indication|clinique|recommandations?|临床信息|检查方法|建议"
)
_HEADING = re.compile(rf"(?:^|(?<=[\s.;。；]))(?:({_KEPT})|{_DROPPED})\s*[:：]\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|(?<=[。！？；])")


def findings_of(report: str) -> str:
    """Keep the findings and the impression of a report that has such sections, or all of it."""
    marks = list(_HEADING.finditer(report))
    starts = [mark.start() for mark in marks]
    sections = zip(marks, [*starts[1:], len(report)], strict=False)
    kept = [report[mark.end() : end].strip() for mark, end in sections if mark[1]]
    return " ".join(filter(None, kept)) or report


def keep_findings(tables: Sequence[PairTable]) -> None:
    """Leave nothing but findings and impression in reports that have such sections, and say so."""
    for table in tables:
        texts = [findings_of(row.report) for row in table.rows]
        changed = sum(a != row.report for a, row in zip(texts, table.rows, strict=True))
        table.notes.append(
            f"findings and impression alone are kept of {changed} of {len(texts)} reports; in the"
            " others no such section was found"
        )
        table.rows = [
            replace(row, report=text) for text, row in zip(texts, table.rows, strict=True)
        ]


def draw_sentences(
    report: str, tokenizer: PreTrainedTokenizerBase, max_tokens: int, *draw: int | str
) -> str:
    """Draw sentences of a report that fit into ``max_tokens`` WordPieces, in their order.

    A report that fits stays whole. What is drawn depends on ``draw`` and the report alone: the same
    report says the same to all pairs that have it.
    """
    sentences = [text for text in _SENTENCE_END.split(report) if text]
    ids = tokenizer(sentences, add_special_tokens=False, verbose=False)["input_ids"]
    room = max_tokens - 2  # [CLS] and [SEP]
    if len(sentences) < 2 or sum(map(len, ids)) <= room:
        return report
    import torch  # seconds: tables are read without it

    order = torch.randperm(len(sentences), generator=generator(*draw, report)).tolist()
    chosen: list[int] = []
    for number in order:
        if len(ids[number]) <= room:
            chosen.append(number)
            room -= len(ids[number])
    return " ".join(sentences[number] for number in sorted(chosen or order[:1]))
