"""Cells that hold no value: how programs and people write that a report or a patient is not there.

Few such cells are one fixed text. Most are put together from few words, see, report, previous, not
available: a cell of such words alone refers to something else or says that there is nothing.
"""

from __future__ import annotations

import re
import unicodedata

_PHRASES = frozenset({
    "", "nan", "none", "null", "n/a", "na", "-", "<na>", "nat", "nil", "\\n", "n.a", "n.d", "nd",
    "n/d", "n.n", "tba", "tbc", "tbd", "todo", "test", "true", "false", "id", "dto", "anon",
    "s.vorbefund", "s.o", "s.u", "k.a", "keine angabe", "keine angaben", "keine daten",
    "kein bericht", "kein bericht vorhanden", "kein befund vorhanden", "kein text", "wahr",
    "falsch", "vrai", "faux", "sin datos", "em branco", "n.v.t", "geen", "brak", "ingen", "ovan",
    "无", "無", "空", "同上", "同前", "见上", "見上", "见附件", "見附件", "见报告", "見報告",
    "详见报告", "詳見報告", "同前次", "无报告", "無報告", "报告未出", "无数据", "无记录", "暂无",
    "待补", "待报告", "未知", "нет", "н/д", "нет данных", "см.выше", "см.заключение",
    "неизвестно", "なし", "該当なし", "記載なし", "未記載", "上記参照", "別紙参照", "レポート参照",
    "없음", "해당없음", "상동",
})  # fmt: skip
"""Whole cells, in lower case, without blanks around dots and slashes."""

_NOT_THERE = (
    # English
    "see refer refers vide cf same idem ditto dito above below previous previously prior preceding"
    " earlier former last before elsewhere report reports note notes comment comments remark letter"
    " dictation document documentation text data entry file pdf attached attachment enclosed"
    " appended scanned separate exam examination study visit pending dictated draft final"
    " preliminary signed unsigned electronically unverified transcribed follow follows available"
    " unavailable applicable documented done given performed recorded reported provided entered"
    " specified stated deleted cancelled canceled error missing blank empty unknown undefined"
    " redacted removed masked anonymous anonymised anonymized"
    # German
    " siehe vgl wie oben unten zuvor vorbefund vorbefunde vorbericht vorberichte befund bericht"
    " arztbrief brief vorheriger vorheriges vorherigen letzter letzte letzten anhang anlage"
    " angegeben vorhanden verfügbar durchgeführt dokumentiert liegt folgt ausstehend unbekannt leer"
    " diktiert entwurf vorläufig gelöscht fehlt entfällt anonym anonymisiert"
    # French, Spanish, Italian, Portuguese, Dutch
    " voir compte rendu cr dessus joint précédent précédente disponible indisponible venir attente"
    " néant inconnu inconnue anonyme rapport courrier ver véase informe anterior previo previa"
    " adjunto adjunta arriba pendiente desconocido desconocida ídem igual anónimo vedi referto"
    " precedente allegato sopra disponibile attesa sconosciuto anonimo laudo anexo acima disponível"
    " pendente desconhecido zie boven verslag vorige beschikbaar onbekend"
)
_SMALL = (
    "a an the of in to is was be been has have as per for on by with from this that it at or and"
    " but not no yet yes or der die das den dem vom von im zum und ist wurde wird nicht noch vor am"
    " nein ja à au ci le la les du des de un une en non pas el los del al sin que il lo dal come"
    " sem não o os niet het een s"
)
"""Words that stand between others, and say nothing alone; some are surnames, too."""
_OF_CHANGE = (
    "unchanged stable stationary change changes changed significant interval since compared"
    " comparison status quo control up ok okay p oct macula image images scan unverändert stabil"
    " stationär kontrolle vergleich seit gegenüber keine änderung bild makula inchangé inchangée"
    " stationnaire cambios estable invariato stabile like od os ou re ra oi right left"
    " rechts links eye eyes auge both beide"
)
"""Words of reports that compare, with another report or with the other eye, and say no finding."""

_ALONE = frozenset(_NOT_THERE.split())
_IN_PLACEHOLDERS = _ALONE | frozenset(_SMALL.split())
_IN_REFERENCES = _IN_PLACEHOLDERS | frozenset(_OF_CHANGE.split())

_ERROR_VALUE = re.compile(r"#[¡¿]?[\w/]+[!?]|#[^\W\d][\w/]{0,4}|#GETTING_DATA|#+|X{3,}|ERR:\d+")
"""What a spreadsheet writes in place of a value, #N/A, #NAME?, #BEZUG!, ####, or a person: xxx."""
_WORD = re.compile(r"[^\W\d_]+")
LONGEST = 80
"""Signs of a cell above which it is none of these."""


def is_placeholder(text: str) -> bool:
    """Say whether a text stands for a value that is not there."""
    if len(text) > LONGEST:
        return False
    word = unicodedata.normalize("NFKC", text).strip().casefold()
    word = re.sub(r"\s*([./])\s*", r"\1", word)  # n. a.
    if word in _PHRASES or word.strip(" .!?:;,()[]<>{}*_-–—") in _PHRASES:
        return True
    if _ERROR_VALUE.fullmatch(word.upper()):
        return True
    words = set(_WORD.findall(word))
    has_number = any(sign.isdigit() for sign in word)
    return not has_number and bool(words & _ALONE) and words <= _IN_PLACEHOLDERS


def says_nothing(report: str) -> bool:
    """Say whether a report is too short to say what is seen, without another report beside it."""
    if len(report) > LONGEST:
        return False
    words = _WORD.findall(report.casefold())
    return sum(map(len, words)) < 2 or set(words) <= _IN_REFERENCES
