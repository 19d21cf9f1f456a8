"""Random numbers that depend on nothing but a seed and what they are for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: int | str) -> int:
    """Derive a 63-bit seed from a base seed and its purpose, as in ``(seed, "validation", 3)``.

    Stateless on purpose: the masks of step 1,000 are the same whether the run was interrupted at
    step 500 or not, and whatever else drew random numbers in between.
    """
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Make a generator seeded by :func:`derive_seed`; a GPU's is for draws too many to copy."""
    import torch  # seconds: tables are split without it

    return torch.Generator(device).manual_seed(derive_seed(*parts))
