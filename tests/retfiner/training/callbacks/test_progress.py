"""A bar where somebody looks at it, whole lines where a file is written."""

import re
import sys

import pytest
import pytorch_lightning as pl
import torch

from retfiner.training.callbacks.progress import ProgressBar

torch.set_num_threads(1)


class Line(pl.LightningModule):
    """A model of one weight, fitted to a line."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        loss = (self.weight * batch[0] - 2 * batch[0]).square().mean()
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(progress, folder):
    data = torch.utils.data.TensorDataset(torch.ones(6, 1))
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, callbacks=[progress], default_root_dir=folder,
        logger=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Line(), torch.utils.data.DataLoader(data, batch_size=2))


def test_a_file_gets_whole_lines(tmp_path, capsys):
    fit(ProgressBar(every_seconds=0), tmp_path)
    printed = capsys.readouterr()
    lines = [line for line in printed.out.splitlines() if line.startswith("epoch")]
    assert len(lines) == 6
    pattern = r"epoch  2  step 3 of 3  loss \d\.\d+  \d+\.\d\d s a step"
    assert re.fullmatch(pattern, lines[-1]), lines[-1]
    assert "\r" not in printed.out + printed.err


def test_a_file_gets_no_more_lines_than_asked_for(tmp_path, capsys):
    fit(ProgressBar(every_seconds=3600), tmp_path)
    assert "step" not in capsys.readouterr().out


@pytest.mark.parametrize("every_seconds", [0, 3600])
def test_a_terminal_gets_a_bar(every_seconds, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fit(ProgressBar(every_seconds), tmp_path)
    printed = capsys.readouterr()
    assert "s a step" not in printed.out
    assert "3/3" in printed.out + printed.err
