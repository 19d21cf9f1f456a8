"""Published sets of image-report pairs, one file a set; to add one, write a file and add a line."""

from __future__ import annotations

from collections.abc import Mapping

from retfiner.data.public import mm_retinal, oct_summary, octdl, olives, pubmed_ophtha
from retfiner.data.public.spec import PublicSet

PUBLIC_SETS: Mapping[str, PublicSet] = {
    "pubmed_ophtha": pubmed_ophtha.SET,
    "mm_retinal": mm_retinal.SET,
    "oct_summary": oct_summary.SET,
    "olives": olives.SET,
    "octdl": octdl.SET,
}
