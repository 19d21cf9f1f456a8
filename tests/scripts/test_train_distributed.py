"""train.py in several processes, as a user starts them: the same run, and nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.helpers.refinement import (
    damage_in_the_middle,
    make_material,
    metrics_of,
    read_csv,
    write_csv,
    write_image,
)
from tests.helpers.scripts import REFINEMENT, run_script

pytestmark = pytest.mark.slow
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """27 pairs, which no two processes can share evenly, and a text encoder without dropout."""
    material = make_material(tmp_path_factory.mktemp("material"), pairs=27, patients=9)
    path = material.text_encoder / "config.json"
    config = json.loads(path.read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    path.write_text(json.dumps(config))
    return material


def words(material, **flags):
    values = {
        "model_weights": material.weights, "train_csv": material.csv,
        "text_encoder": material.text_encoder, "val_fraction": 0.4, "lr": 1e-3, "max_epochs": 2,
        "num_workers": 1, "precision": "32-true", "accelerator": "cpu",
        "lr_schedule": "constant", "fusion_warmup_steps": 0,
    }  # fmt: skip
    return [str(word) for name, value in (values | flags).items() for word in (f"--{name}", value)]


def numbers(folder):
    """Return what was logged in its order, whatever the columns: a resumed run has other ones."""
    rows = metrics_of(folder)
    return [
        (name, row["step"], float(value))
        for row in rows
        for name, value in sorted(row.items())
        if value and not name.startswith("lr")
    ]


def only_run(folder):
    (run,) = folder.iterdir()
    return run


@pytest.fixture(scope="module")
def one(material, tmp_path_factory):
    """The run of one process, with the batch of two."""
    folder = tmp_path_factory.mktemp("one")
    done = run_script("train.py", *words(material, batch_size=8, output_dir=folder))
    assert done.returncode == 0, done.stderr
    return only_run(folder)


def assert_same_run(found, expected):
    names = [entry[:2] for entry in numbers(expected)]
    assert [entry[:2] for entry in numbers(found)] == names
    assert [entry[2] for entry in numbers(found)] == pytest.approx(
        [entry[2] for entry in numbers(expected)], rel=1e-5
    )
    states = [
        torch.load(folder / "best-model.ckpt", weights_only=True)["state_dict"]
        for folder in (found, expected)
    ]
    for key, value in states[1].items():
        torch.testing.assert_close(states[0][key], value, rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize("first", ["auto", "fsdp"])
def test_torchrun_gives_the_run_of_one_process_also_when_it_is_resumed(
    material, one, tmp_path, first
):
    """Stopped after the first epoch, resumed for the second: one folder, one voice, one run.

    A run that began with weights that are split goes on with whole ones.
    """
    said = "2 processes with split weights, cpu" if first == "fsdp" else "2 processes, cpu"
    for changes in ({"max_epochs": 1, "strategy": first}, {"resume": tmp_path / "models"}):
        if "resume" in changes:
            changes["resume"] = only_run(changes["resume"])
            said = "2 processes, cpu"
        flags = words(material, batch_size=4, output_dir=tmp_path / "models", **changes)
        done = subprocess.run(
            [*TORCHRUN, str(REFINEMENT / "train.py"), *flags],
            cwd=REFINEMENT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(f"{said}, 32-true") == 1
        assert done.stdout.count("Refined model:") == 1
        assert "Warning" not in done.stderr
    folder = only_run(tmp_path / "models")
    assert "# processes: 2" in (folder / "config.yaml").read_text(encoding="utf-8")
    assert_same_run(folder, one)


@pytest.mark.parametrize("sizes", [{"batch_size": 4}, {"batch_size": 3, "contrast_batch": 4}])
def test_devices_alone_start_the_processes(material, one, tmp_path, sizes):
    """Also where each of them computes its part of the batch in chunks."""
    done = run_script(
        "train.py", *words(material, devices=2, output_dir=tmp_path / "models", **sizes)
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Refined model:") == 1
    assert_same_run(only_run(tmp_path / "models"), one)


def test_an_image_that_one_process_cannot_read(material, tmp_path):
    rows = [[str(material.csv.parent / image), *rest] for image, *rest in read_csv(material.csv)]
    rows[4][0] = str(tmp_path / "damaged.png")
    write_image(Path(rows[4][0]), 4)
    damage_in_the_middle(Path(rows[4][0]))
    csv = write_csv(tmp_path / "pairs.csv", rows)
    done = run_script("train.py", *words(
        material, train_csv=csv, batch_size=4, devices=2, output_dir=tmp_path / "models",
    ))  # fmt: skip
    assert done.returncode != 0
    assert "error: row 6 of" in done.stderr
    assert "--on_bad_row skip" in done.stderr


def children_of(process: int) -> list[int]:
    """The processes that train beside a process; those that read images are not of them."""
    done = subprocess.run(
        ["ps", "-ww", "--ppid", str(process), "-o", "pid=,args="],  # long paths whole
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    return [int(pid) for pid, command in lines if "train.py" in command]


def is_alive(process: int) -> bool:
    done = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False
    )
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")


@pytest.mark.parametrize(
    ("killed", "strategy"),
    [("the first", "ddp"), ("the other", "ddp"), ("the other", "fsdp")],
)
def test_when_a_process_is_killed_the_other_ends(material, tmp_path, killed, strategy):
    flags = words(
        material, batch_size=4, devices=2, num_workers=0, max_epochs=10_000, patience=10_000,
        strategy=strategy, output_dir=tmp_path / "models",
    )  # fmt: skip
    with (tmp_path / "said").open("w") as said:
        first = subprocess.Popen(
            [sys.executable, str(REFINEMENT / "train.py"), *flags],
            cwd=REFINEMENT, env=ENVIRONMENT, stdout=said, stderr=said,
        )  # fmt: skip
    try:
        begun = time.monotonic()
        while not list(tmp_path.glob("models/*/last.ckpt")):
            assert first.poll() is None and time.monotonic() - begun < 200
            time.sleep(0.5)
        (other,) = children_of(first.pid)
        os.kill(first.pid if killed == "the first" else other, signal.SIGKILL)
        begun = time.monotonic()
        assert first.wait(60) != 0
        while is_alive(other):
            assert time.monotonic() - begun < 60
            time.sleep(0.5)
        text = (tmp_path / "said").read_text(errors="replace")
        assert "error: another process of this run has ended" in text
        assert "Traceback" not in text
    finally:
        first.kill()
        first.wait()
