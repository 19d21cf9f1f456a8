"""Masked language modelling (MLM) over the image."""

from __future__ import annotations

from retfiner.losses.masked import MaskedModelling


class MaskedLanguageModelling(MaskedModelling):
    """Fill in hidden words, 15 % as published, from the rest of the report and the image (BERT)."""

    causal = False

    def __init__(self, probability: float = 0.15) -> None:
        super().__init__(probability)
