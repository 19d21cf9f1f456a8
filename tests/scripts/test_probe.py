"""probe.py and the shell scripts as a user runs them."""

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from linprobe.datasets import read_data_set
from retfiner.common.predictions import find_runs, make_table, read_run, write_run
from retfiner.vision.published.find import entry_named
from tests.helpers.probing_data import draw, write_data_set
from tests.helpers.refinement import write_base_model

PROBING = Path(__file__).parents[2] / "linear_probing"
SHELL = sorted(set(PROBING.glob("*.sh")) - {PROBING / "reproduce.sh"})
QUICK = ["--num_workers", "0", "--views", "4", "--device", "cpu"]


def start(folder, *words):
    return subprocess.Popen(
        [str(word) for word in words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def probe(folder, *words):
    return start(folder, sys.executable, PROBING / "probe.py", *QUICK, *words)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Two data sets, a base model and a refined one."""
    folder = tmp_path_factory.mktemp("probe")
    for seed, name in enumerate(("OCTDL", "OCTID")):
        write_data_set(folder / "_data" / name, seed=seed)
    (folder / "_weights").mkdir()
    write_base_model(folder / "_weights" / "base.pth", 0)
    write_base_model(folder / "_weights" / "mine.pth", 1)
    return folder


def test_from_images_to_the_report(material):
    base = ["--init_weights", "_weights/base.pth", "--data_set", "OCTID", "OCTDL", "--seed", 0, 1]
    code, out, err = finish(probe(material, *base))
    assert code == 0, err
    assert re.search(
        r"RETFound on OCTDL: \d+\.\d\d ± \d+\.\d\d \(chance 33\.3; 2 seeds\), \d+\.\d s", out
    )
    assert "Results: __results/baseline/RETFound-" in out
    # Two at once, on the same features and results, corrupt nothing.
    twins = [probe(material, *base, "--ft_weights", "_weights/mine.pth") for _ in range(2)]
    outcomes = [finish(twin) for twin in twins]
    assert [code for code, _, _ in outcomes] == [0, 0], outcomes
    [command] = re.findall(r"linear_probing/report\.py (.*)", outcomes[-1][1])
    assert command == "--results __results --base baseline/RETFound --refined refined/RETFound"
    words = [*command.split(), "--bootstrap", 50, "--swaps", 99]
    code, out, err = finish(start(material, sys.executable, PROBING / "report.py", *words))
    assert code == 0, err
    assert "OCTDL" in out
    assert (material / "__results/report/index.html").is_file()
    for version in ("baseline", "refined"):
        runs = [read_run(path)[1] for path in find_runs(material / "__results" / version)]
        assert [(run["data_set"], run["seed"]) for run in runs] == [
            (name, seed) for name in ("OCTDL", "OCTID") for seed in (0, 1)
        ]
    left = [path for path in material.rglob(".*") if path.parent.name != "AMD"]
    assert left == []


def test_several_models_by_one_command_end_in_the_report(material, tmp_path):
    words = ["--weights", "base=_weights/base.pth", "mine=_weights/mine.pth", "--seed", 0, 1]
    code, out, err = finish(probe(material, *words, "--results", tmp_path / "r"))
    assert code == 0, err
    assert "base → mine" in out and "6 are needed for" in " ".join(out.split())
    assert (tmp_path / "r" / "report" / "index.html").is_file()


def test_a_sweep_cut_off_goes_on_where_it_stopped(material, tmp_path):
    words = ["--init_weights", "_weights/base.pth", "--seed", 0, 1, "--results", tmp_path / "r"]
    process = probe(material, *words)
    assert process.stdout is not None
    for line in process.stdout:  # killed as soon as the first data set is done
        if " on OCTDL:" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.wait(timeout=60)
    process.stdout.close()
    done = {p: p.stat().st_mtime_ns for p in (tmp_path / "r").rglob("OCTDL/*/run.json")}
    assert len(done) == 2
    code, out, err = finish(probe(material, *words))
    assert code == 0, err
    assert "2 seeds, 2 of them finished before)" in out
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert len(find_runs(tmp_path / "r")) == 4


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--init_weights", "nowhere.pth"], "There is no checkpoint at nowhere.pth"),
        (["--init_weights", "_weights/base.pth", "--data_set", "OCT5k"], "one of OCTDL, OCTID"),
        (["--init_weights", "_weights/base.pth", "--data_root", "none"], "no folder none"),
        (["--init_weights", "_weights/base.pth", "--device", "tpu"], "no such device"),
        (["--init_weights", "_weights/base.pth", "--views", "-1"], "--views"),
        (["--init_weights", "_weights/base.pth", "--patience", "5", "--lr", "1"], "--lr"),
        ([], "--init_weights"),
    ],
)
def test_bad_input_is_a_message_and_status_2(material, monkeypatch, capsys, words, expected):
    monkeypatch.chdir(material)
    monkeypatch.setattr(sys, "argv", ["probe.py", *words])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(PROBING / "probe.py"), run_name="__main__")
    assert stop.value.code == 2
    assert expected in capsys.readouterr().err


def test_there_is_a_pair_of_scripts_for_each_model():
    names = {path.stem for path in SHELL}
    models = ("retfound", "visionFM", "urfound", "mae", "mirage")
    assert names == {*models, *(f"{model}_baseline" for model in models)}


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.stem)
def test_scripts_are_short_executable_and_name_what_probe_knows(script):
    text = script.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 15
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    is_baseline = script.stem.endswith("_baseline")
    assert ("--ft_weights" in text) is not is_baseline
    [backbone] = re.findall(r"--backbone (\w+)", text)
    names = [*re.findall(r"--init_weights (\S+)", text), *re.findall(r"ft=\((\w\S+)\)", text)]
    assert {entry_named(name).backbone for name in names} == {backbone}
    assert f"--version {'baseline' if is_baseline else 'refined'} " in text


def test_a_script_runs_from_any_folder_and_every_flag_of_it_can_be_overridden(material, tmp_path):
    """On a copy, so that nothing is written into the repository."""
    home = tmp_path / "a folder" / "linear_probing"
    home.mkdir(parents=True)
    for path in (PROBING / "probe.py", *SHELL):
        shutil.copy(path, home)
    python = home.parent / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')  # a symlink would lose its venv
    python.chmod(0o755)
    (home / "_weights").mkdir()
    shutil.copy(material / "_weights/base.pth", home / "_weights/RETFound_oct_weights.pth")
    shutil.copy(material / "_weights/mine.pth", home / "_weights/RetFiner_RETFound.pth")
    shutil.copytree(material / "_data", home / "_data")
    few = [*QUICK, "--seed", 3, "--data_set", "OCTID"]
    base = start(tmp_path, home / "retfound_baseline.sh", *few)
    mine = start(
        material,
        home / "retfound.sh",
        *few,
        *("--ft_weights", "_weights/mine.pth", "--data_set", "OCTDL", "--results", "elsewhere"),
    )
    for code, _, err in (finish(base), finish(mine)):
        assert code == 0, err
    assert list(home.glob("__results/baseline/RETFound-*/OCTID/seed3-*/run.json"))
    assert list(material.glob("elsewhere/refined/RETFound-*/OCTDL/seed3-*/run.json"))
    assert list(home.glob("_features/*.npy"))
    assert not (home / "__results/refined").exists()


def test_labels_grades_and_values_of_a_table_end_in_one_report(material, tmp_path):
    """The depth of the band is a value, a grade and two labels."""
    folder, rows = tmp_path / "_data" / "Toy", []
    for split, count in (("train", 48), ("val", 24), ("test", 32)):
        (folder / split / "images").mkdir(parents=True)
        for k in range(count):
            depth = k // 2 % 4
            place = f"{split}/images/P{split}{k // 2:02d}_{k % 2}.png"
            Image.fromarray(draw(depth, np.random.default_rng([count, k]))).save(folder / place)
            rows.append({"image": place, "patient": f"{split}{k // 2}",
                         "target_depth": 12.5 * depth, "target_stage": depth,
                         "target_deep": int(depth > 1), "target_odd": depth % 2})  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "split.csv", index=False)
    words = ["--weights", "base=_weights/base.pth", "mine=_weights/mine.pth", "--seed", 0,
             "--data_root", tmp_path / "_data", "--results", tmp_path / "r"]  # fmt: skip
    code, out, err = finish(probe(material, *words))
    assert code == 0, err
    for said in (r"mine on Toy_depth: R² 0\.\d\d\d \(chance 0\.0; 1 run\)",
                 r"mine on Toy_stage: Quadratic kappa \(%\) \d\d\.\d\d",
                 r"mine on Toy_labels: AUROC \(%\) \d\d\.\d\d \(chance 50\.0",
                 "note: Read as values: a regression."):  # fmt: skip
        assert re.search(said, out), said
    changes = pd.read_csv(tmp_path / "r" / "report" / "changes.csv").set_index("data_set")
    assert set(changes.drop("Mean")["task"]) == {"ordinal", "multilabel", "regression"}
    assert changes["low"].notna().all() and changes.loc["Toy_depth", "refined_mean"] > 0.3
    [run] = (tmp_path / "r").glob("mine-*/Toy_depth/seed0-*")
    table = read_run(run)[0]
    assert (table["task"] == "regression").all() and table["p_depth"].between(-30, 70).all()
    few = [*words, "--probe", "prototype", "--shots", 1, "--num_workers", 0, "--device", "cpu"]
    prototype = partial(start, material, sys.executable, PROBING / "probe.py")
    code, out, err = finish(prototype(*few))
    assert code == 0, err
    assert "mine on Toy_stage" in out and "on Toy_depth" not in out
    note = "Toy_labels, Toy_depth left out: only tasks of classes go with"
    assert f"note: {note} --probe prototype and --shots." in out
    pd.DataFrame(rows).drop(columns="target_stage").to_csv(folder / "split.csv", index=False)
    code, _, err = finish(prototype(*few))
    assert code == 2 and "Only tasks of classes go with --probe prototype" in err


def test_flags_are_left_out_of_the_next_command_however_they_are_written():
    without = runpy.run_path(str(PROBING / "probe.py"))["_without"]
    words = ["--version", "refined", "--views", "4", "--ft_weights=a b.pth", "--version", "mine"]
    assert without(words, ("--ft_weights", "--version")) == ["--views", "4"]


def test_zero_shot_stands_in_the_same_leaderboard(material, tmp_path):
    """A run as evaluate.py writes it: no training images, one seed, numbered patients."""
    data = read_data_set(material / "_data" / "OCTID")
    test = data.splits["test"]
    scores = np.full((len(test), 3), 0.2) + 0.4 * np.eye(3)[test.labels]
    table = make_table(scores, test.labels, data.classes, model="zero_shot/mine", weights="f" * 16,
                       data_set="OCTID", probe="zero_shot", train_images=0, train_patients=0,
                       image=test.names, patient=[o.patient for o in test.owners])  # fmt: skip
    about = {"settings": {"task": "zero_shot", "weights_sha256": "f" * 64}, "context": {},
             "notes": []}  # fmt: skip
    write_run(tmp_path / "zero", table, about)
    words = ["--weights", "base=_weights/base.pth", "mine=_weights/mine.pth", "--seed", 0, 1,
             "--data_set", "OCTID", "--results", tmp_path / "r", "--predictions",
             tmp_path / "zero"]  # fmt: skip
    code, _, err = finish(probe(material, *words))
    assert code == 0, err
    board = (tmp_path / "r" / "report" / "table.md").read_text(encoding="utf-8")
    [line] = [line for line in board.splitlines() if line.startswith("| zero\\_shot/mine |")
              and "100.00" in line and line.count("|") == 5]  # fmt: skip
    assert line.rstrip().endswith("1.00 |"), "its mean rank"
    code, _, err = finish(probe(material, *words[:-1], tmp_path / "nowhere.csv"))
    assert code == 2 and "cannot be read as a table of predictions" in err
