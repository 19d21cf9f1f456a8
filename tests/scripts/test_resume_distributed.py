"""Runs of several processes that are killed, or told to stop, go on to the bit."""

from __future__ import annotations

import os
import random
import signal

import pytest

from retfiner.resuming import AUTO
from tests.helpers.forks import checkpoint_of, forking, kill_again_and_again, wait_until
from tests.helpers.refinement import make_material, settings
from tests.helpers.same import assert_same_run

pytestmark = pytest.mark.slow
PROCESSES = 2
QUICK = {"batch_size": 2, "checkpoint_every_n_steps": 1, "max_epochs": 3}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    with forking(tmp_path_factory.mktemp("forks") / "log.txt") as forks:
        yield forks


def run_to_the_end(forks, config):
    """Run in two processes; however often it was interrupted, it leaves one folder."""
    statuses = forks.run_together(config, PROCESSES)
    assert statuses == [0, 0], forks.log.read_text(errors="replace")[-3000:]
    (folder,) = config.output_dir.iterdir()
    assert not list(folder.glob(".*")), "nothing half written is left"
    return folder


@pytest.fixture(scope="module")
def whole(forks, material, tmp_path_factory):
    """Runs that nobody interrupts, one a strategy."""
    made = {}

    def whole(strategy):
        if strategy not in made:
            config = settings(
                material, tmp_path_factory.mktemp("whole"), strategy=strategy, **QUICK
            )
            made[strategy] = run_to_the_end(forks, config)
        return made[strategy]

    return whole


@pytest.mark.parametrize(("strategy", "kills"), [("ddp", 5), ("fsdp", 3)])
def test_runs_that_are_killed_at_any_moment(forks, material, whole, tmp_path, strategy, kills):
    config = settings(material, tmp_path, resume=AUTO, strategy=strategy, **QUICK)
    kill_again_and_again(forks, config, kills, random.Random(kills), PROCESSES)
    assert_same_run(whole(strategy), run_to_the_end(forks, config))


@pytest.mark.parametrize(("strategy", "told"), [("ddp", 1), ("fsdp", 0)])
def test_a_run_of_which_one_process_is_told_to_stop(
    forks, material, whole, tmp_path, strategy, told
):
    config = settings(material, tmp_path, resume=AUTO, strategy=strategy, **QUICK)
    pids = forks.start_together(config, PROCESSES)
    wait_until(lambda: checkpoint_of(tmp_path) is not None, "a checkpoint")
    os.kill(pids[told], signal.SIGTERM)
    assert [forks.wait(pid) for pid in pids] == [128 + signal.SIGTERM] * PROCESSES
    assert "stopped by SIGTERM; saved at step" in forks.log.read_text(errors="replace")
    assert_same_run(whole(strategy), run_to_the_end(forks, config))
