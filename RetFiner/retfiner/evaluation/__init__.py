"""What a refined model can do besides features: retrieval, zero-shot classification, reports."""
