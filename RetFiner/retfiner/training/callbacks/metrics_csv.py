"""``metrics.csv`` and TensorBoard's files, which a resumed run goes on with."""

from __future__ import annotations

import csv
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from retfiner.common.files import whole_file
from retfiner.training.distributed.launch import is_rank_zero


class _AppendingWriter(ExperimentWriter):
    """Go on with a metrics.csv that is there; Lightning's own writer would delete it."""

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="", errors="replace") as file:  # a checkpoint restores it
                self.metrics_keys = next(csv.reader(file), [])


class MetricsCsv(CSVLogger):
    """Lightning's CSV logger, writing ``metrics.csv`` straight into the run's folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder.parent, name=folder.name, version="")
        if is_rank_zero():  # Lightning asks no other for one, and making one makes a folder
            self._experiment = _AppendingWriter(log_dir=str(folder))
        self._path = folder / "metrics.csv"

    def text(self) -> str:
        """Return all rows so far as the file holds them, for a checkpoint."""
        self.save()
        return self._path.read_bytes().decode() if self._path.is_file() else ""

    @rank_zero_only
    def restore(self, text: str) -> None:
        """Let the file hold the rows of a checkpoint, and none that were logged after it.

        Args:
            text: What :meth:`text` returned.
        """
        assert isinstance(self._experiment, _AppendingWriter)
        with whole_file(self._path) as temporary:
            temporary.write_bytes(text.encode())
        self._experiment.metrics = []
        self._experiment.metrics_keys = next(csv.reader(text.splitlines()), [])


@rank_zero_only
def rewrite_tensorboard(logger: TensorBoardLogger, text: str) -> None:
    """Let TensorBoard's files hold the rows of a checkpoint, and none that were logged after it.

    Args:
        logger: The logger, which has not logged yet.
        text: The rows, as :meth:`MetricsCsv.text` returned them.
    """
    for path in Path(logger.log_dir).glob("events.out.tfevents.*"):
        path.unlink()
    for row in csv.DictReader(text.splitlines()):
        values = {name: float(value) for name, value in row.items() if value and name != "step"}
        logger.log_metrics(values, int(row["step"]))
