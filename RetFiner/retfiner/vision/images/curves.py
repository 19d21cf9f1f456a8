"""How reflectivity of Heidelberg's devices is shown: a convention, which no file states.

Reflectivity is in [0, 1], and a retina is almost black in it. Three conventions are in use; images
made by one are not like those made by another, so a model should see one alone:

- ``fourth_root``: as Heidelberg's description of the raw export shows it, and HeyexImport. Ours.
- ``log``: (ln(r + 2.44e-4) + 8.3) / 8.285, as eyepy and OCT-Converter from 0.5.8 on, to be like
  what HEYEX shows on the screen.
- ``root_2.4``: the root of degree 2.4, as panimg and OCT-Converter before 0.5.8.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Curve = Callable[[NDArray[Any]], NDArray[Any]]

FOURTH_ROOT = "fourth_root"

CURVES: Mapping[str, Curve] = {
    FOURTH_ROOT: lambda r: np.sqrt(np.sqrt(r)),  # quicker than a power
    "log": lambda r: ((np.log(r + 2.44e-4) + 8.3) / 8.285).clip(0, 1),
    "root_2.4": lambda r: r ** (1 / 2.4),
}
"""Name of a curve -> from reflectivity in [0, 1] to gray values in [0, 1]."""


def displayed(reflectivity: NDArray[Any], curve: str | None) -> NDArray[np.float32]:
    """Show reflectivity in [0, 1] by a curve, None being :data:`FOURTH_ROOT`."""
    return CURVES[curve or FOURTH_ROOT](reflectivity).astype(np.float32)
