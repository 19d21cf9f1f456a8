"""Restricted numbers for settings: jsonargparse checks them, mypy sees ``int`` and ``float``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    NonNegativeInt = int
    PositiveInt = int
    NonNegativeFloat = float
    PositiveFloat = float
    ClosedUnitInterval = float
    OpenUnitInterval = float
else:
    from jsonargparse.typing import (  # noqa: F401 - others take them from here
        ClosedUnitInterval,
        NonNegativeFloat,
        NonNegativeInt,
        OpenUnitInterval,
        PositiveFloat,
        PositiveInt,
    )
