"""Waiting for images is measured, and answered with advice once."""

from types import SimpleNamespace

import pytest
import torch

from retfiner.refine import refine
from retfiner.training.callbacks.throughput import DataLoadingMonitor
from tests.helpers.refinement import OWN_DATASET, make_material, settings

torch.set_num_threads(1)

SLOW = f"""{OWN_DATASET}
import time

class Slow(Pairs):
    def __getitem__(self, index):
        time.sleep(0.05)
        return super().__getitem__(index)
"""


class Clock:
    """Time that passes when it is told to: a crowded machine changes nothing."""

    now = 0.0

    def __call__(self):
        return float(self.now)


def run_epoch(callback, waits, steps, capsys):
    trainer = SimpleNamespace(
        num_training_batches=len(waits),
        is_global_zero=True,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    module = None
    callback.on_train_epoch_start(trainer, module)
    for index, (wait, step) in enumerate(zip(waits, steps, strict=True)):
        callback.clock.now += wait
        callback.on_train_batch_start(trainer, module, None, index)
        callback.clock.now += step
        callback.on_train_batch_end(trainer, module, None, None, index)
    return callback.share, capsys.readouterr().out


def test_the_share_is_that_of_the_gaps_between_steps(capsys):
    callback = DataLoadingMonitor(clock=Clock())
    # The wait before the first step is the start of the workers and does not count.
    share, said = run_epoch(callback, [30, 1, 1], [1, 1, 1], capsys)
    assert share == pytest.approx(2 / 5)
    assert "40 %" in said and "--image_cache" in said and "--num_workers" in said
    _, said = run_epoch(callback, [0, 1], [1, 1], capsys)
    assert not said, "said once"


def test_no_word_where_next_to_nothing_waits(capsys):
    share, said = run_epoch(DataLoadingMonitor(clock=Clock()), [0, 1], [30, 30], capsys)
    assert share == pytest.approx(1 / 61)
    assert not said


def test_a_cache_that_is_filled_is_no_reason_to_ask_for_one(capsys):
    callback = DataLoadingMonitor(is_cached=True, clock=Clock())
    _, said = run_epoch(callback, [0, 1], [1, 1], capsys)
    assert not said, "the first epoch decodes"
    _, said = run_epoch(callback, [0, 1], [1, 1], capsys)
    assert "--num_workers" in said and "--image_cache" not in said


def test_a_run_that_waits_says_so(tmp_path, capsys):
    """Without a cache, which there is of a table's images alone."""
    material = make_material(tmp_path / "material")
    slow = tmp_path / "slow.py"
    slow.write_text(SLOW)
    changes = {"train_csv": None, "dataset": f"{slow}:Slow", "image_root": material.csv.parent}
    refine(settings(material, tmp_path / "models", losses=["itc"], max_epochs=1, **changes))
    said = capsys.readouterr().out
    assert "waited for images; more processes with --num_workers would" in said
