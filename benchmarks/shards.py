"""Pairs a second out of tar files, and what a table of many rows costs before the first batch.

    python benchmarks/shards.py
    python benchmarks/shards.py --rows 10000 100000 1000000

The same pairs are read as loose files, out of shards, and out of shards behind a server of this
machine, in turns. Then a simulated index: a table of so many rows over tar files whose members are
one byte long is read and checked as at the start of training, each size in a process of its own.
"""

from __future__ import annotations
