"""The folder of a run: its name, and the files that say what was done."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from retfiner.common.cli import as_plain
from retfiner.common.errors import InputError
from retfiner.common.files import write_text
from retfiner.config import REPOSITORY, RefineConfig


def run_name(config: RefineConfig, backbone: str) -> str:
    """Name a run after its backbone, losses, temperature, learning rate, batch size and note.

    Args:
        config: The settings.
        backbone: The backbone's name.
    """
    weights = config.weights
    losses = "-".join(
        name if weight == 1 else f"{name}{weight:g}" for name, weight in weights.items()
    )
    parts = [
        backbone.replace("/", "-"),
        losses,
        f"temp{config.contra_temp:g}{'exp' if config.exponential_temp else ''}",
        f"lr{config.lr:g}",
        f"bs{config.batch_size}",
    ]
    if config.note:
        parts.append(re.sub(r"[^A-Za-z0-9.-]+", "-", config.note).strip("-"))
    return "_".join(parts)


def make_run_folder(output_dir: Path, name: str) -> Path:
    """Create a folder that no other run has, and return it.

    A run of the same name gets ``-2``, ``-3`` and so on: nothing is overwritten, and two runs that
    start in the same second cannot meet, because creating a folder succeeds for one of them only.

    Args:
        output_dir: Folder of all runs; created if need be.
        name: The wanted name.

    Raises:
        InputError: If nothing can be written there.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        for number in range(1, 10_000):
            folder = output_dir / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise InputError(
            f"no run folder can be made in {output_dir}",
            got=error.strerror,
            remedy="give a folder you can write to with --output_dir",
        ) from error
    raise InputError(f"{output_dir} holds 10,000 runs named {name}", remedy="give a --note")


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


def write_config(folder: Path, config: RefineConfig, facts: dict[str, Any]) -> None:
    """Write ``config.yaml``: every setting, and below them, as comments, where the run came from.

    The file can be given back to ``--config``.

    Args:
        folder: The run's folder.
        config: The settings.
        facts: What else shaped the numbers: versions, device, data.
    """
    facts = {"command": shlex.join(sys.argv), "git_revision": git_revision(), **facts}
    comment = yaml.safe_dump(as_plain(facts), sort_keys=False, allow_unicode=True, width=96)
    text = yaml.safe_dump(as_plain(config), sort_keys=False, allow_unicode=True)
    lines = "".join(f"# {line}\n" for line in comment.splitlines())
    write_text(folder / "config.yaml", f"{text}\n{lines}")


def git_revision() -> str:
    """Return the revision of this code, with ``+`` where files were changed, or ``unknown``."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
