"""Checkpoints are written whole or not at all, and never hold a number that is not finite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from torch import Tensor

from retfiner.common.errors import InputError, shorten
from retfiner.common.faults import is_disk_full
from retfiner.common.files import save_torch, whole_file
from retfiner.vision import read_checkpoint


class AtomicCheckpointIO(CheckpointIO):
    """How Lightning writes and reads checkpoints of a run.

    The old file stays until the new one lies beside it, can be read and is safe on the disk; a
    process that is killed at any moment leaves one of the two. What is left of the attempt begins
    with a dot; the next run of the folder removes it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            InputError: If weights or optimiser states are not finite, or the disk is full.
        """
        require_finite(checkpoint, Path(path))
        try:
            with whole_file(path) as temporary:
                save_torch(checkpoint, temporary)
                read_checkpoint(temporary)
        except (OSError, RuntimeError) as error:  # torch's writer raises its own on a full disk
            full = is_disk_full(error)
            raise InputError(
                f"{path} cannot be written" + (": the disk is full" if full else ""),
                got=str(error).split("\n", maxsplit=1)[0],
                expected="room for a whole checkpoint beside the last one"
                if full
                else "storage that answers, and a folder that may be written to",
                remedy=("make room; " if full else "look at the storage; ")
                + (
                    "the last checkpoint stays as it is, and the run goes on from it with --resume"
                    if Path(path).with_name("last.ckpt").is_file()
                    else "there is no checkpoint of this run yet: begin it again"
                ),
            ) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint without running anything in it, onto the CPU.

        Raises:
            InputError: If it is damaged.
        """
        return dict(read_checkpoint(path).content)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, if it is there."""
        Path(path).unlink(missing_ok=True)


def require_finite(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Make sure that a checkpoint can be gone on from.

    Raises:
        InputError: If a weight or a state of the optimiser is infinite or no number.
    """
    named = dict(checkpoint.get("state_dict", {}))
    for optimizer in checkpoint.get("optimizer_states", []):
        for index, state in optimizer["state"].items():
            named |= {f"{key} of parameter {index}": value for key, value in state.items()}
    floats = {
        name: value
        for name, value in named.items()
        if isinstance(value, Tensor) and value.is_floating_point()
    }
    if not floats:
        return
    bad = _not_finite(floats)
    if not bad:
        return
    raise InputError(
        f"{path} is not written: the run has left the finite numbers",
        got=f"{len(bad)} of {len(floats)} tensors: {shorten(bad, 4)}",
        expected="finite weights and optimiser states",
        remedy="a lower --lr, --gradient_clip_val 1, or --precision 32-true; the last good "
        "checkpoint stays as it is",
    )


def _not_finite(values: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors that are not finite; each device is waited for once, and to its end.

    A copy that does not block would be read before it is there: torch hands out its memory at once.
    """
    places: dict[torch.device, list[str]] = {}
    for name, value in values.items():
        places.setdefault(value.device, []).append(name)
    bad: set[str] = set()
    for names in places.values():
        finite = torch.stack([values[name].isfinite().all() for name in names]).cpu().tolist()
        bad.update(name for name, is_finite in zip(names, finite, strict=True) if not is_finite)
    return [name for name in values if name in bad]


def remove_leftovers(folder: Path) -> None:
    """Remove what was half written when a run was killed; only who holds the folder may call it."""
    for stem in ("last", "best-model", "metrics", "curves", "config"):
        for path in folder.glob(f".{stem}-*"):
            path.unlink(missing_ok=True)
