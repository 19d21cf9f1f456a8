"""Generative modelling (GM): write the report from the image."""

from retfiner.losses.masked import MaskedModelling


class GenerativeModelling(MaskedModelling):
    """Fill in hidden words, 60 % as published, from the words before them and the image."""

    causal = True
    probability = 0.6
