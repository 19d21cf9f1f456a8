"""The folder of a run: its name, and the files that say what was done."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from lightning_utilities.core.rank_zero import rank_zero_only

from retfiner.common.commands import REPOSITORY
from retfiner.common.errors import InputError
from retfiner.common.files import lock_file, write_text
from retfiner.training.checkpoint_io import remove_leftovers
from retfiner.training.distributed.launch import is_rank_zero


def run_name(
    backbone: str,
    weights: Mapping[str, float],
    *,
    temperature: float,
    exponential_temp: bool,
    lr: float,
    batch_size: int,
    note: str = "",
) -> str:
    """Name a run after its backbone, losses, temperature, learning rate, batch size and note.

    Args:
        backbone: The backbone's name.
        weights: Weight of each loss by name.
        temperature: Contrastive temperature to start from.
        exponential_temp: Whether its logarithm is learned.
        lr: Learning rate.
        batch_size: Pairs in a batch of one device.
        note: The user's word for it.
    """
    losses = "-".join(
        name if weight == 1 else f"{name}{weight:g}" for name, weight in weights.items()
    )
    parts = [
        backbone.replace("/", "-"),
        losses,
        f"temp{temperature:g}{'exp' if exponential_temp else ''}",
        f"lr{lr:g}",
        f"bs{batch_size}",
    ]
    if note:
        parts.append(re.sub(r"[^A-Za-z0-9.-]+", "-", note).strip("-"))
    return "_".join(parts)


def make_run_folder(output_dir: Path, name: str) -> Path:
    """Create a folder that no other run has, and return it.

    A run of the same name gets ``-2``, ``-3`` and so on: nothing is overwritten, and two runs that
    start in the same second cannot meet, because creating a folder succeeds for one of them only.

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


def write_config(folder: Path, settings: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write ``config.yaml``: every setting, and below them, as comments, where the run came from.

    The file can be given back to ``--config``.
    """
    facts = {"command": shlex.join(sys.argv), "git_revision": git_revision(), **facts}
    comment = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=96)
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
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


@contextmanager
def open_run_folder(output_dir: Path, name: str, existing: Path | None) -> Iterator[Path]:
    """Have a run's folder to oneself, while the context lasts.

    Yields:
        The folder, without what a killed run had half written.

    Raises:
        InputError: If another process is at it, or no folder can be made.
    """
    is_first = is_rank_zero()
    # For now, in the others: the first process tells which folder it made.
    folder = existing or (make_run_folder(output_dir, name) if is_first else output_dir / name)
    with lock_run_folder(folder, remove_if_empty=existing is None):
        if is_first:
            remove_leftovers(folder)
        try:
            yield folder
        except Exception:
            # Nothing was trained or measured: a folder with settings alone would be no run.
            if is_first and existing is None and _names_in(folder) <= {"config.yaml", *_LOCK}:
                (folder / "config.yaml").unlink(missing_ok=True)
            raise


_LOCK = ("run.lock", "run.holder", "run.lock-soft")


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@contextmanager
def lock_run_folder(folder: Path, remove_if_empty: bool = False) -> Iterator[None]:
    """Keep other processes from working on the same run, while the context lasts.

    The operating system lets go of the lock when the process ends, however it ends.

    Raises:
        InputError: If another process is at it.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:  # the first process of a run holds it for all
        yield
        return
    path, holder = (folder / name for name in _LOCK[:2])

    def held() -> InputError:
        return InputError(
            f"another process is at the run in {folder}",
            got=holder.read_text(encoding="utf-8") if holder.is_file() else "a lock that is held",
            expected="one process a run",
            remedy="wait for it, or start a run of its own without --resume",
        )

    lock = lock_file(path, 2, held)  # one that was just killed may take a moment to be gone
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        path.unlink(missing_ok=True)  # while it is held: who waits for it sees that it is gone
        lock.release()
        if remove_if_empty and not any(folder.iterdir()):
            folder.rmdir()
