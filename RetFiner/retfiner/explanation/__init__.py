"""Where a refined model looks: maps of each word of a report over the B-scan.

Cross-attention maps and gradient-weighted ones show where a word takes its information from in the
pass that judges whether image and report match; attention rollout shows where the image's own
summary comes from. They tell what the model uses, not where a lesion is: how far the two agree is
measured by ``python -m retfiner.explanation.pointing``.
"""

from __future__ import annotations

from retfiner.explanation.explain import Explanation, explain
from retfiner.explanation.maps import TokenMaps, choose_layer, token_maps
from retfiner.explanation.rollout import rollout
from retfiner.explanation.words import Word, words_of

__all__ = [
    "Explanation",
    "TokenMaps",
    "Word",
    "choose_layer",
    "explain",
    "rollout",
    "token_maps",
    "words_of",
]
