"""Rows that belong together because they share something, straight or by way of other rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def number_linked(rows: Sequence[tuple[Hashable, Hashable]]) -> list[int]:
    """Number rows, each by two names: those that share either, by any chain, have one number."""
    import numpy as np  # a moment: not for a wrong path
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = (
        {name: number for number, name in enumerate(dict.fromkeys(side))}
        for side in zip(*rows, strict=True)
    )
    left = [first[name] for name, _ in rows]
    right = [len(first) + second[name] for _, name in rows]
    size = len(first) + len(second)
    links = coo_array((np.ones(len(rows)), (left, right)), shape=(size, size))
    components = connected_components(links, directed=False)[1].tolist()
    return [components[number] for number in left]
