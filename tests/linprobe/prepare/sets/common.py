"""What the tests of all data sets look at."""

from __future__ import annotations

import pickle
import re
from collections import defaultdict

import numpy as np

from linprobe.prepare.spec import BScan, Listing, Options
from tests.helpers.downloads import SIZE, pattern

CENTRAL, ALL = Options(), Options(bscan="all")


def by_name(listing: Listing) -> dict[str, BScan]:
    """Check what holds for every listing, and give its B-scans by name."""
    found = {bscan.name: bscan for bscan in listing.bscans}
    assert len(found) == len(listing.bscans), "names are not unique"
    for bscan in listing.bscans:
        assert re.fullmatch(r"[A-Za-z0-9._-]+", bscan.name)
        assert "\\" not in bscan.source and not bscan.source.startswith("/")
        pickle.loads(pickle.dumps(bscan.read))
    return found


def patients_by_label(listing: Listing) -> dict[str, set[str | None]]:
    found = defaultdict(set)
    for bscan in listing.bscans:
        found[bscan.label].add(bscan.patient)
    return dict(found)


def shows(bscan: BScan, number: int, size: tuple[int, int] = SIZE, tolerance: int = 0) -> bool:
    """Whether a B-scan is read as the one of a number; JPEG needs a tolerance."""
    pixels = bscan.read()
    assert pixels.dtype == np.uint8
    if pixels.shape != size:
        return False
    difference = np.abs(pixels.astype(int) - pattern(number, size))
    return bool(np.median(difference) <= tolerance)


def told(listing: Listing, *words: str) -> bool:
    """Whether one of the notes has all of the words."""
    return any(all(word in note for word in words) for note in listing.notes)
