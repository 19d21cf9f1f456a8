"""Several processes: how they start, what they say to each other, weights that are split."""
