"""Runs that are really killed, or told to stop, go on to the bit."""

import os
import random
import signal
import subprocess
import sys

import pytest

from retfiner.training.resume import AUTO
from tests.helpers.forks import forking, kill_again_and_again, wait_until
from tests.helpers.refinement import OWN_DATASET, make_material, settings
from tests.helpers.same import assert_same_run
from tests.helpers.scripts import REFINEMENT, run_script

QUICK = {"batch_size": 4, "checkpoint_every_n_steps": 1}

# Ten pairs are validated before training; an epoch trains on 14 pairs and validates ten.
PREEMPTED = f"""{OWN_DATASET}
import os

class Preempted(Pairs):
    seen = 0
    def __getitem__(self, index):
        order = self.root / "signal.txt"
        if order.is_file():
            item, number = map(int, order.read_text().split())
            if self.seen == item:
                os.kill(os.getpid(), number)
        self.seen += 1
        return super().__getitem__(index)
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    (folder / "mine.py").write_text(PREEMPTED)
    return make_material(folder)


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    with forking(tmp_path_factory.mktemp("forks") / "log.txt") as forks:
        yield forks


@pytest.fixture(scope="module")
def whole(forks, material, tmp_path_factory):
    """Runs that nobody interrupts, each made once."""
    made = {}

    def whole(**changes):
        key = repr(changes)
        if key not in made:
            folder = tmp_path_factory.mktemp("whole")
            assert forks.run(settings(material, folder, **changes)) == 0, tail(forks)
            (made[key],) = folder.iterdir()
        return made[key]

    return whole


def tail(forks):
    return forks.log.read_text(errors="replace")[-3000:]


def go_on(forks, config):
    """Run to the end; a run leaves one folder however often it was interrupted."""
    assert forks.run(config) == 0, tail(forks)
    (folder,) = config.output_dir.iterdir()
    assert not list(folder.glob(".*")), "nothing half written is left"
    return folder


# -- killed ----------------------------------------------------------------------------------------


def test_a_run_that_is_killed_twice_ends_like_one_that_was_not(forks, material, whole, tmp_path):
    config = settings(material, tmp_path, resume=AUTO, **QUICK)
    kill_again_and_again(forks, config, 2, random.Random(0))
    assert_same_run(whole(**QUICK), go_on(forks, config))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "changes"),
    [
        (7, {"max_epochs": 3}),
        (7, {"max_epochs": 5, "accumulate_grad_batches": 3, "lr_schedule": "cosine"}),
        (7, {"max_epochs": 3, "num_workers": 2, "optimizer_states": "bfloat16"}),
    ],
)
def test_runs_that_are_killed_at_any_moment(forks, material, whole, tmp_path, kills, changes):
    changes = QUICK | changes
    config = settings(material, tmp_path, resume=AUTO, **changes)
    kill_again_and_again(forks, config, kills, random.Random(kills))
    assert_same_run(whole(**changes), go_on(forks, config))


# -- told to stop ----------------------------------------------------------------------------------


def preempt(forks, material, whole, tmp_path, item, number):
    """Send a signal when an item is read; checkpoints within an epoch are written for it alone."""
    root = material.csv.parent
    changes = {
        "train_csv": None, "dataset": f"{root / 'mine.py'}:Preempted", "image_root": root,
        "batch_size": 4, "accumulate_grad_batches": 2,
    }  # fmt: skip
    expected = whole(**changes)
    config = settings(material, tmp_path, resume=AUTO, **changes)
    (root / "signal.txt").write_text(f"{item} {int(number)}")
    try:
        status = forks.run(config)
    finally:
        (root / "signal.txt").unlink()
    assert status == 128 + number, tail(forks)
    (folder,) = tmp_path.iterdir()
    if item >= 14:
        said = tail(forks)
        assert f"stopped by {number.name}; saved at step" in said
        assert f"--config {folder / 'config.yaml'} --resume {folder}" in said
    return expected, config


def test_a_run_that_is_told_to_stop_in_validation_goes_on_with_it(forks, material, whole, tmp_path):
    expected, config = preempt(forks, material, whole, tmp_path, 30, signal.SIGTERM)
    assert_same_run(expected, go_on(forks, config))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("item", "number"),
    [
        (11, signal.SIGTERM),  # before the first step
        (20, signal.SIGINT),  # between steps
        (16, signal.SIGUSR1),  # between the batches of a step
        (35, signal.SIGTERM),  # between epochs
        (42, signal.SIGINT),
        (50, signal.SIGUSR1),  # in the last validation
    ],
)
def test_signals_save_first(forks, material, whole, tmp_path, item, number):
    expected, config = preempt(forks, material, whole, tmp_path, item, number)
    assert_same_run(expected, go_on(forks, config))


@pytest.mark.slow
def test_before_there_is_anything_to_save(forks, material, whole, tmp_path):
    preempt(forks, material, whole, tmp_path, 5, signal.SIGTERM)
    assert "nothing to save yet" in tail(forks)


@pytest.mark.slow
def test_the_same_command_again_and_again_comes_to_an_end(material, whole, tmp_path):
    """As a cluster has it: signals to all processes, workers too; the same line each time."""
    unset = dict.fromkeys(
        ["fixed_temp", "duplicate_reports", "redraw_masks", "random_token_from", "drop_path"]
    )
    changes = {"batch_size": 4, "max_epochs": 3, "num_workers": 2, "recipe": "auto", **unset}
    changes["train_interpolation"] = None
    config = settings(material, tmp_path, **changes)
    words = [
        "--model_weights", material.weights, "--train_csv", material.csv, "--text_encoder",
        material.text_encoder, "--output_dir", tmp_path, "--val_fraction", "0.34", "--batch_size",
        "4", "--max_epochs", "3", "--lr", "1e-3", "--num_workers", "2", "--precision", "32-true",
        "--accelerator", "cpu", "--resume", "auto",
    ]  # fmt: skip
    assert config.lr == 1e-3
    log = tmp_path.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "train.py", *map(str, words)],
            cwd=REFINEMENT,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    wait_until(lambda: "epoch  1" in log.read_text(errors="replace"), "the second epoch")
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 143, log.read_text(errors="replace")[-3000:]
    assert "Traceback" not in log.read_text(errors="replace")
    done = run_script("train.py", *words)
    assert done.returncode == 0, done.stderr
    assert "going on with" in done.stdout
    again = run_script("train.py", *words)
    assert again.returncode == 0, again.stderr
    assert "is finished: 3 epochs" in again.stdout
    (folder,) = tmp_path.iterdir()
    assert_same_run(whole(**changes), folder)


# -- two at once -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_runs_that_start_at_once_get_folders_of_their_own(forks, material, whole, tmp_path):
    pids = [forks.start(settings(material, tmp_path, **QUICK)) for _ in range(2)]
    assert [forks.wait(pid) for pid in pids] == [0, 0], tail(forks)
    folders = list(tmp_path.iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert_same_run(whole(**QUICK), folder)


@pytest.mark.slow
def test_two_processes_never_go_on_with_one_run(forks, material, whole, tmp_path):
    """The one that comes late is refused, or finds the run finished."""
    config = settings(material, tmp_path, resume=AUTO, **QUICK)
    kill_again_and_again(forks, config, 1, random.Random(1))
    pids = [forks.start(config) for _ in range(2)]
    statuses = sorted(forks.wait(pid) for pid in pids)
    assert statuses in ([0, 2], [0, 0])
    if statuses == [0, 2]:
        assert "another process is at the run" in tail(forks)
    assert_same_run(whole(**QUICK), go_on(forks, config))
