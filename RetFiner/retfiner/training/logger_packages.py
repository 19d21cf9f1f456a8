"""Is what a run shall log with installed?"""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Sequence

from retfiner.common.commands import REPOSITORY
from retfiner.common.errors import InputError


def require_logger_packages(names: Sequence[str]) -> None:
    """Make sure that what the named loggers log with is installed; torch is not imported for it.

    Raises:
        InputError: If a package is missing; it says how to install it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            extra = shlex.quote(f"{REPOSITORY}[{name}]")
            raise InputError(
                f"--logger {name} needs a package that is not installed",
                got=f"no {name} in {sys.prefix}",
                remedy=f"{shlex.quote(sys.executable)} -m pip install -e {extra}",
            )
