"""Masked language modelling (MLM) over the image."""

from retfiner.losses.masked import MaskedModelling


class MaskedLanguageModelling(MaskedModelling):
    """Fill in hidden words, 15 % as published, from the rest of the report and the image (BERT)."""

    causal = False
    probability = 0.15
