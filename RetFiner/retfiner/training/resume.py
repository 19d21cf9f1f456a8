"""Which run to go on with, and whether it is the same run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from retfiner.common.errors import InputError
from retfiner.training.callbacks.checkpointing import KEY
from retfiner.training.distributed.launch import rank_zero_print
from retfiner.training.recipe import Recipe
from retfiner.training.resume_path import AUTO, find_resume_checkpoint
from retfiner.vision import RawCheckpoint, read_checkpoint

FREE_ON_RESUME = frozenset(
    {
        "accelerator", "checkpoint_every_n_steps", "devices", "gradient_checkpointing",
        "logger", "max_epochs", "model_weights", "note", "num_nodes", "num_workers", "output_dir",
        "patience", "resume", "strategy", "text_encoder", "worker_start",
    }
)  # fmt: skip
"""Settings that may differ when a run goes on; all others would change what the run is."""

TABLES = frozenset({"image_root", "train_csv", "val_csv"})
"""Where tables and their images lie: free as well, since the data's own fingerprint decides."""


@dataclass(frozen=True)
class ResumedRun:
    """A run to go on with.

    Attributes:
        path: Its checkpoint.
        description: What the run wrote about itself.
        epochs: Epochs done.
        waited: Epochs since the validation loss last fell.
        has_ended: Whether the run came to its own end.
        metrics_csv: The rows of ``metrics.csv`` when it was written.
    """

    path: Path
    description: Mapping[str, Any]
    epochs: int
    waited: int
    has_ended: bool
    metrics_csv: str

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.path.parent

    @property
    def chosen(self) -> dict[str, Any]:
        """What its recipe chose, by name; other numbers of epochs would now choose otherwise."""
        settings = self.description["settings"]
        return {key: settings[key] for key in _chosen(self.description) - FREE_ON_RESUME}

    def require_results(self) -> None:
        """Make sure that a finished run's results are there, and write its rows where they are not.

        Raises:
            InputError: If its refined model is gone.
        """
        if not (self.folder / "best-model.ckpt").is_file():
            raise InputError(
                f"the run in {self.folder} is finished, and its refined model is gone",
                got="no best-model.ckpt",
                remedy="put it back, or begin a new run without --resume",
            )
        path, rows = self.folder / "metrics.csv", self.metrics_csv.encode()
        if not path.is_file() or not path.read_bytes().startswith(rows):
            path.write_bytes(rows)

    def is_finished(self, max_epochs: int, patience: int) -> bool:
        """Say whether nothing is left to do under these settings."""
        is_enough = self.epochs >= max_epochs or self.waited >= patience
        return self.has_ended and is_enough


def choose_run(
    resume: Path | None, output_dir: Path, name: str, description: dict[str, Any]
) -> ResumedRun | None:
    """Find the run to go on with, whose id the description gets.

    Args:
        resume: A checkpoint, a run's folder, :data:`AUTO`, or None for a new run.
        output_dir: Folder of all runs.
        name: What the run at hand is called.
        description: What it says about itself.

    Returns:
        The run, or None for a new one.

    Raises:
        InputError: If there is no such run, or it is another one.
    """
    if resume is None:
        return None
    if resume == AUTO:
        run, passed_over = find_newest(output_dir, name, description)
        where = "none, a new one begins" if run is None else f"going on with {run.path}"
        rank_zero_print(f"Resume:         the newest run of these settings: {where}")
        if run is None and passed_over:
            rank_zero_print(f"                {passed_over}")
    else:
        run = read_resumed_run(find_resume_checkpoint(resume))
        require_same_run(run, description)
    if run is not None:
        description["provenance"]["run_id"] = run.description["provenance"]["run_id"]
    return run


def read_resumed_run(path: Path) -> ResumedRun:
    """Read what a checkpoint says about its run.

    Args:
        path: ``last.ckpt``.

    Raises:
        InputError: If it is none that a run can go on from.
    """
    try:
        raw = read_checkpoint(path)
    except InputError as error:
        best = path.with_name("best-model.ckpt")
        kept = f"; {best} holds its best weights so far" if best.is_file() else ""
        raise error.changed(remedy=f"begin a new run, without --resume{kept}") from error
    absent = sorted(_NEEDED - raw.content.keys())
    if not isinstance(raw.metadata.get("settings"), Mapping) or absent:
        raise _not_resumable(path, f"no {', '.join(absent)}" if absent else "no settings")
    try:
        return _resumed(path, raw)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise _not_resumable(path, f"{type(error).__name__}: {error}") from error


_NEEDED = frozenset({KEY, "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks"})


def _not_resumable(path: Path, got: str) -> InputError:
    last = path.with_name("last.ckpt")
    return InputError(
        f"{path} cannot be resumed",
        got=f"a checkpoint without what a run goes on from: {got}",
        expected="last.ckpt as train.py writes it",
        remedy=f"--resume {last}" if last != path and last.is_file() else None,
    )


def _resumed(path: Path, raw: RawCheckpoint) -> ResumedRun:
    own, callbacks = raw.content[KEY], raw.content["callbacks"]
    waited = [state["wait_count"] for state in callbacks.values() if "wait_count" in state]
    return ResumedRun(
        path=path,
        description=raw.metadata,
        epochs=int(raw.content["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"]),
        waited=int(waited[0]) if waited else 0,
        has_ended=bool(own["finished"]),
        metrics_csv=str(own["metrics_csv"]),
    )


def find_newest(
    output_dir: Path, name: str, description: Mapping[str, Any]
) -> tuple[ResumedRun | None, str]:
    """Find the newest run of the same settings, weights and data.

    The newest is the one whose folder has the highest number: folders are numbered as runs begin,
    and a number does not go wrong with a clock.

    Args:
        output_dir: Folder of all runs.
        name: The run's name; its folders are ``name``, ``name-2`` and so on.
        description: What the run would say about itself.

    Returns:
        The run, or None where there is none with a checkpoint; and why the newest one of that name
        is another run, if it is.

    Raises:
        InputError: If a checkpoint of such a run is damaged.
    """
    numbered = []
    for path in output_dir.glob(f"{glob_literal(name)}*/last.ckpt"):
        number = re.fullmatch(r"(?:-(\d+))?", path.parent.name.removeprefix(name))
        if number is not None:
            numbered.append((int(number[1] or 1), path))
    passed_over = ""
    for _, path in sorted(numbered, reverse=True):
        found = read_resumed_run(path)
        differing = differences(found.description, description)
        if not differing:
            return found, passed_over
        passed_over = passed_over or f"not {path}: {'; '.join(differing)}"
    return None, passed_over


def glob_literal(name: str) -> str:
    """Return a pattern that matches a name and nothing else."""
    return re.sub(r"([*?[])", r"[\1]", name)


def differences(stored: Mapping[str, Any], description: Mapping[str, Any]) -> list[str]:
    """Name what makes two runs different ones."""
    old, new = stored["settings"], description["settings"]
    free = FREE_ON_RESUME | (_chosen(stored) & _chosen(description))
    if old.get("train_csv") is not None and new["train_csv"] is not None:
        free |= TABLES
    free |= new.keys() - old.keys() - set(description.get("given", ()))  # of a later version
    differing = [
        f"--{key} was {old.get(key)!r}, now {new[key]!r}"
        for key in new
        if key not in free and old.get(key) != new[key]
    ]
    for key, what in (
        ("base_weights_sha256", "--model_weights holds other bytes"),
        ("data_sha256", "the data are others: rows, reports, patients or image files have changed"),
    ):
        if stored["provenance"].get(key) != description["provenance"].get(key):
            differing.append(what)
    return differing


def _chosen(description: Mapping[str, Any]) -> set[str]:
    """Name the settings that a run's recipe chose and its user did not."""
    if "given" not in description:  # of an earlier version: all of them count as set
        return set()
    return {field.name for field in fields(Recipe)} - set(description["given"])


def require_same_run(found: ResumedRun, description: Mapping[str, Any]) -> None:
    """Make sure that the run to go on with is the same run.

    Raises:
        InputError: If settings, base weights or data differ; it names them.
    """
    differing = differences(found.description, description)
    if differing:
        raise InputError(
            f"{found.path} belongs to a run with other settings",
            got="; ".join(differing),
            expected="the same settings, weights and data as when the run began",
            remedy=_same_settings(found, description),
        )


def _same_settings(found: ResumedRun, description: Mapping[str, Any]) -> str:
    """Write down the flags of the run, with the paths of now where its own may be gone."""
    words = ["--config", str(found.folder / "config.yaml"), "--resume", str(found.path)]
    old, new = found.description["settings"], description["settings"]
    for key in ("model_weights", "text_encoder", "train_csv", "val_csv", "image_root"):
        if old.get(key) is not None and new.get(key) is not None and old[key] != new[key]:
            words += [f"--{key}", str(new[key])]
    return shlex.join(words)
