"""Linear probing of retinal foundation models: features, heads, and the report.

A run is described by :mod:`retfiner.common.results`, scored by
:mod:`retfiner.common.classification`, and compared with others by :mod:`linprobe.report`.
"""
