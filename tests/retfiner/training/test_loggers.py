"""Runs that log to Weights & Biases and to MLflow, offline; where these are installed."""

from __future__ import annotations

import importlib.util
import json
import shlex
import struct
import sys

import pytest
import tomllib

from retfiner.common.commands import REPOSITORY
from retfiner.common.errors import InputError, Stopped
from retfiner.refine import check_paths, refine
from retfiner.training.logger_packages import require_logger_packages
from retfiner.training.module import RefinementModule
from tests.helpers.refinement import make_material, metrics_of, settings

VARIABLES = {"WANDB_PROJECT", "WANDB_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"), pairs=12, patients=6)


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def test_a_package_that_is_missing_is_said_before_anything_is_read(material, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "wandb" else found(name)
    )
    config = settings(material, tmp_path, logger=["tensorboard", "wandb"])
    with pytest.raises(InputError, match="--logger wandb needs a package") as caught:
        check_paths(config)
    extra = shlex.quote(f"{REPOSITORY}[wandb]")
    assert f"remedy:   {sys.executable} -m pip install -e {extra}" in str(caught.value)
    require_logger_packages(["tensorboard"])
    assert not any(tmp_path.glob("*/metrics.csv"))


def test_the_remedy_installs_an_extra_that_there_is():
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for name in ("wandb", "mlflow"):
        assert extras["optional-dependencies"][name][0].startswith(name)


def test_a_logger_that_is_named_twice(material, tmp_path):
    with pytest.raises(InputError, match="a logger is named twice"):
        settings(material, tmp_path, logger=["tensorboard", "tensorboard"])


def numbers_of(folder):
    """Every number of metrics.csv, with its name and step."""
    return sorted(
        (name, int(row["step"]), float(value))
        for row in metrics_of(folder)
        for name, value in row.items()
        if value and name not in {"step", "epoch"}
    )


def names_in(folder):
    return {path.name for path in folder.iterdir()}


FILES = {"best-model.ckpt", "last.ckpt", "config.yaml", "metrics.csv", "curves.png"}


def log_records(content):
    """Yield the records of a LevelDB log, which begins 7 bytes before ``content``."""
    place, parts, block = 7, b"", 32768
    end = len(content) + 7
    while place + 7 <= end:
        if block - place % block < 7:  # no room for a head: the block ends in zeros
            place += block - place % block
            continue
        _, length, kind = struct.unpack("<IHB", content[place - 7 : place])
        parts += content[place : place + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def read_wandb(folder):
    """Read the offline runs below a folder, oldest first: what was said of each, and its rows."""
    from wandb.proto import wandb_internal_pb2

    runs = []
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        about, config, rows = {}, {}, []
        for data in log_records(path.read_bytes()[7:]):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.run.run_id:
                run = record.run
                about = {"id": run.run_id, "name": run.display_name, "project": run.project}
            for update in (*record.run.config.update, *record.config.update):
                config[update.key or update.nested_key[0]] = json.loads(update.value_json)
            row = {
                item.key or item.nested_key[0]: json.loads(item.value_json)
                for item in record.history.item
            }
            step = row.pop("trainer/global_step", None)
            rows += [
                (name, step, float(value))
                for name, value in row.items()
                if name != "epoch" and not name.startswith("_")
            ]
        runs.append(about | {"config": config, "rows": sorted(rows)})
    return runs


def test_weights_and_biases_gets_every_number_and_setting(material, tmp_path):
    pytest.importorskip("wandb")
    folder = refine(settings(material, tmp_path, max_epochs=1, logger=["wandb"])).folder
    assert names_in(folder) == FILES | {"wandb"}
    (run,) = read_wandb(folder)
    assert (run["name"], run["project"]) == (folder.name, "retfiner")
    assert (run["config"]["lr"], run["config"]["losses"]) == (0.001, ["itc", "itm", "mlm", "gm"])
    assert run["rows"] == numbers_of(folder)
    refine(settings(material, tmp_path, max_epochs=2, resume=folder, logger=["wandb"]))
    first, second = read_wandb(folder)
    assert first["id"] == second["id"], "`wandb sync` makes one run of them"
    assert second["config"]["max_epochs"] == 2
    assert sorted(first["rows"] + second["rows"]) == numbers_of(folder)


def test_mlflow_gets_every_number_and_setting_in_one_run(material, tmp_path):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    folder = refine(settings(material, tmp_path / "ü b", max_epochs=1, logger=["mlflow"])).folder
    assert names_in(folder) == FILES | {"mlflow"}
    client = MlflowClient(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("retfiner")

    def only_run():
        (run,) = client.search_runs([experiment.experiment_id])
        return run

    assert only_run().info.run_name == folder.name
    assert only_run().info.status == "FINISHED"
    assert only_run().data.params["losses"] == "['itc', 'itm', 'mlm', 'gm']"
    refine(settings(material, tmp_path / "ü b", max_epochs=2, resume=folder, logger=["mlflow"]))
    run = only_run()
    assert run.data.params["max_epochs"] == "1", "as when it began"
    there = [
        (name, metric.step, metric.value)
        for name in run.data.metrics
        if name != "epoch"
        for metric in client.get_metric_history(run.info.run_id, name)
    ]
    ours = [(name.replace("@", ""), step, value) for name, step, value in numbers_of(folder)]
    assert sorted(there) == sorted(ours)
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize(
    ("error", "status"),
    [(InputError("it is over"), "FAILED"), (Stopped(15, "it is over"), "KILLED")],
)
def test_a_run_that_does_not_end_by_itself(material, tmp_path, monkeypatch, error, status):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    def fails(*_):
        raise error

    monkeypatch.setattr(RefinementModule, "training_step", fails)
    with pytest.raises(type(error), match="it is over"):
        refine(settings(material, tmp_path, logger=["mlflow"]))
    (database,) = tmp_path.glob("*/mlflow/mlflow.db")
    client = MlflowClient(f"sqlite:///{database}")
    number = client.get_experiment_by_name("retfiner").experiment_id
    assert [run.info.status for run in client.search_runs([number])] == [status]


def test_nobody_is_logged_in(material, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # it reads its variables once a session
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(InputError, match="--logger wandb cannot begin a run") as caught:
        refine(settings(material, tmp_path, logger=["wandb"]))
    assert "WANDB_MODE=offline" in str(caught.value)


def test_a_server_that_does_not_answer(material, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match="--logger mlflow cannot begin a run") as caught:
        refine(settings(material, tmp_path, logger=["mlflow"]))
    assert "MLFLOW_TRACKING_URI" in str(caught.value)
