"""Zero-shot classification: an image belongs to the class whose description it is closest to."""
