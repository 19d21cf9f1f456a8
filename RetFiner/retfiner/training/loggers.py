"""TensorBoard, Weights & Biases and MLflow, by Lightning's own loggers, below the run's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from warnings import filterwarnings

from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from retfiner.common.errors import InputError, Stopped
from retfiner.training.distributed.launch import is_rank_zero
from retfiner.training.logger_packages import require_logger_packages

PROJECT = "retfiner"
"""Weights & Biases' project and MLflow's experiment, unless their own variables name another."""

TAG = "retfiner.run_id"


def build_loggers(names: Sequence[str], folder: Path, run_id: str) -> list[Logger]:
    """Make the loggers that go beside ``metrics.csv``.

    Args:
        names: Which: tensorboard, wandb, mlflow.
        folder: The run's folder.
        run_id: The run's own id; what was logged under it is gone on with.

    Raises:
        InputError: If a package is missing, or a tracking server cannot be reached.
    """
    require_logger_packages(names)
    loggers: list[Logger] = []
    for name in names:
        if name == "tensorboard":
            loggers.append(TensorBoardLogger(folder, "", "tensorboard"))
        elif is_rank_zero():  # the other processes would make runs of their own
            loggers.append((_wandb if name == "wandb" else _mlflow)(folder, run_id))
    return loggers


def _wandb(folder: Path, run_id: str) -> WandbLogger:
    return WandbLogger(
        name=folder.name,
        save_dir=folder,
        id=run_id,
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        # Neither the terminal's text, which may quote a table, nor the code leaves the machine.
        settings={"console": "off", "disable_git": True, "save_code": False, "quiet": True},
    )


class MlflowRun(MLFlowLogger):
    """A run of MLflow that is over when :meth:`end` says so.

    Lightning finalizes its loggers after the validation before training already.
    """

    def log_hyperparams(self, params: Any) -> None:
        """Log the settings once: MLflow refuses other values, and a resumed run may have some."""
        client = self.experiment
        if not client.get_run(self.run_id).data.params:
            super().log_hyperparams(params)
        client.update_run(self.run_id, status="RUNNING")

    def finalize(self, status: str = "success") -> None:
        """Leave the run open."""

    def end(self, status: str) -> None:
        """End the run; ``status`` is one of MLflow's."""
        self.experiment.set_terminated(self.run_id, status)


def _mlflow(folder: Path, run_id: str) -> MlflowRun:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # else MLflow reports its use
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    # It takes no @: recall@5 is recall5 there.
    filterwarnings("ignore", "MLFlow only allows")
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    artifacts = None
    if uri is None:
        (folder / "mlflow").mkdir(exist_ok=True)
        uri = f"sqlite:///{folder.resolve() / 'mlflow' / 'mlflow.db'}"
        artifacts = (folder.resolve() / "mlflow" / "artifacts").as_uri()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    try:
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(name)
        number = (
            experiment.experiment_id if experiment else client.create_experiment(name, artifacts)
        )
        found = client.search_runs([number], f"tags.`{TAG}` = '{run_id}'", max_results=1)
    except MlflowException as error:
        raise _refused("mlflow", error) from error
    return MlflowRun(
        experiment_name=name,
        run_name=folder.name,
        tracking_uri=uri,
        tags={TAG: run_id},
        run_id=found[0].info.run_id if found else None,
    )


@contextmanager
def open_runs(loggers: Sequence[Logger], settings: Mapping[str, Any]) -> Iterator[None]:
    """Let trackers begin a run, or go on with it, with the settings; end it with the context.

    Raises:
        InputError: If a tracker refuses, because nobody is logged in for example.
    """
    trackers = [each for each in loggers if isinstance(each, WandbLogger | MlflowRun)]
    for tracker in trackers:
        try:
            tracker.log_hyperparams(dict(settings))
        except Exception as error:  # each tracker's own, and those of its HTTP library
            name = "wandb" if isinstance(tracker, WandbLogger) else "mlflow"
            raise _refused(name, error) from error
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except Stopped:
        status = "KILLED"
        raise
    finally:
        for tracker in trackers:
            if isinstance(tracker, WandbLogger):
                tracker.experiment.finish(exit_code=int(status != "FINISHED"))
            else:
                tracker.end(status)


_REMEDIES = {
    "wandb": "`wandb login`, or WANDB_MODE=offline to write below the run's folder alone",
    "mlflow": "MLFLOW_TRACKING_URI of a server that answers, or unset, to write below the folder",
}


def _refused(name: str, error: Exception) -> InputError:
    return InputError(
        f"--logger {name} cannot begin a run",
        got=(str(error).strip() or type(error).__name__).splitlines()[0],
        remedy=_REMEDIES[name],
    )
