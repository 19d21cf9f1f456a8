"""Where the checkpoint lies that a run goes on from, without torch."""

from __future__ import annotations

from pathlib import Path

from retfiner.common.errors import InputError

AUTO = Path("auto")
"""``--resume auto``; a checkpoint of that name is ``./auto``."""


def find_resume_checkpoint(resume: Path) -> Path:
    """Return the checkpoint to go on with.

    Args:
        resume: A checkpoint, or the folder of a run with its ``last.ckpt``.

    Raises:
        InputError: If there is none.
    """
    path = resume / "last.ckpt" if resume.is_dir() else resume
    if not path.is_file():
        raise InputError(
            "there is nothing to resume",
            got=f"no file {path}",
            expected="last.ckpt of an earlier run, or the folder it lies in",
        )
    return path
