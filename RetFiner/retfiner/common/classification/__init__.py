"""How well classes are told apart, for probing and zero-shot alike: metrics and their intervals."""
