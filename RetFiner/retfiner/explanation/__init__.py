"""Where a refined model looks: maps of each word of a report over the B-scan.

Cross-attention maps and gradient-weighted ones show where a word takes its information from in the
pass that judges whether image and report match; attention rollout shows where the image's own
summary comes from. They tell what the model uses, not where a lesion is: how far the two agree is
measured by ``python -m retfiner.explanation.pointing``.

``explain.py`` holds what Python users need; ``run.py`` serves the script of that name.
"""
