"""Which eye is meant, however files, headers and tables write it."""

from __future__ import annotations

import re
from collections.abc import Mapping

EYES: Mapping[str, str] = {
    **dict.fromkeys(
        ["od", "r", "re", "right", "rechts", "rechtes", "ra", "d", "droit", "droite", "derecho",
         "derecha", "destro", "destra", "dx", "dexter", "direito", "rechteroog", "prawe", "prawy",
         "правый", "右", "右眼", "右目"], "OD"
    ),
    **dict.fromkeys(
        ["os", "og", "oi", "oe", "l", "le", "la", "li", "left", "links", "linkes", "g", "gauche",
         "i", "izquierdo", "izquierda", "s", "sinistro", "sinistra", "sin", "sn", "sx", "sinister",
         "e", "esquerdo", "linkeroog", "lewe", "lewy", "левый", "左", "左眼", "左目"], "OS"
    ),
    **dict.fromkeys(
        ["ou", "odg", "ods", "ao", "b", "ba", "be", "bds", "both", "beide", "beidseits", "ambos",
         "les deux", "bilateral", "双眼", "雙眼", "両眼"], "OU"
    ),
}  # fmt: skip
"""How files and tables call the eyes; OU is both."""
_EYE = re.compile(
    r"^(ojos?|occhio|œil|oeil|oculus|olhos?|oko) | (eyes?|augen?|ojos|olhos|yeux|глаз)$"
)
_TWO_EYES = re.compile(r"(\w+)(?:\s*[/+&,]\s*|\s+(?:und|and|et|y|e)\s+)(\w+)")


def eye_of(text: str) -> str:
    """Return OD, OS or OU for what means it, and nothing for what does not."""
    plain = _EYE.sub("", text.strip().replace(".", "").casefold())
    if two := _TWO_EYES.fullmatch(plain):  # R/L, OD + OS
        return "OU" if {EYES.get(two[1]), EYES.get(two[2])} == {"OD", "OS"} else ""
    return EYES.get(plain, "")
