"""Linear probing of retinal foundation models: features, heads, metrics, results, and the report.

A run is described by :mod:`linprobe.results`; what scores it lies in :mod:`linprobe.metrics`, and
what compares many of them in :mod:`linprobe.report`.
"""
