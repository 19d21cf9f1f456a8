"""torchmetrics unread: Lightning finds what it needs, and everybody else the whole of it."""

import subprocess
import sys

import pytest

BEGIN = (
    "import sys\n"
    "from retfiner.training.torchmetrics_later import read_torchmetrics_later\n"
    "read_torchmetrics_later()\n"
    "assert 'torchmetrics.functional' not in sys.modules\n"
)


def run(code):
    command = [sys.executable, "-c", BEGIN + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "asks",
    [
        "from torchmetrics import *; Accuracy",
        "from torchmetrics.classification import Accuracy",
    ],
)
def test_whatever_is_asked_for_is_there_and_of_one_kind(asks):
    run(
        "import pytorch_lightning as pl, torch\n"
        "from torchmetrics import Metric, MetricCollection\n"
        f"{asks}\n"
        "import torchmetrics\n"
        "assert torchmetrics.functional.accuracy and torchmetrics.MeanMetric\n"
        "assert torchmetrics.Metric is Metric\n"
        "assert torchmetrics.MetricCollection is MetricCollection\n"
        "from pytorch_lightning.trainer.connectors.logger_connector import result\n"
        "metric = Accuracy(task='multiclass', num_classes=2)\n"
        "assert isinstance(metric, result.Metric)\n"
        "assert metric(torch.tensor([0, 1]), torch.tensor([0, 0])) == 0.5\n"
        "assert MetricCollection([metric]) and not hasattr(torchmetrics, 'nothing')\n"
    )


def test_lightning_reads_no_metric_it_has_no_use_for():
    unread = run(
        "import pytorch_lightning as pl\n"
        "from pytorch_lightning.callbacks import ModelCheckpoint\n"
        "import lightning_fabric.utilities.spike\n"
        "print([n for n in ('torchmetrics.functional', 'scipy.signal') if n in sys.modules])\n"
        "assert not hasattr(sys.modules['torchmetrics'], '__nothing__')\n"
    )
    assert unread == "[]\n"


def test_what_is_imported_already_stays_as_it_is():
    run_whole = (
        "import torchmetrics\n"
        "from retfiner.training.torchmetrics_later import read_torchmetrics_later\n"
        "read_torchmetrics_later()\n"
        "assert sys.modules['torchmetrics'] is torchmetrics and torchmetrics.Accuracy\n"
    )
    command = [sys.executable, "-c", "import sys\n" + run_whole]
    subprocess.run(command, check=True, timeout=120)
