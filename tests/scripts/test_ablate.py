"""ablate.sh as a user runs it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.probing_data import write_data_set
from tests.helpers.refinement import make_material

SCRIPT = Path(__file__).parents[2] / "RetFiner" / "ablate.sh"


def ablate(folder, *words):
    return subprocess.run(
        ["bash", str(SCRIPT), *map(str, words)], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}, timeout=500, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--losses", "itc"], "is what ablate.sh sets itself"),
        (["--output", "x", "--data_root", "y"], "are needed"),
        (["--output"], "--output needs a value"),
    ],
)
def test_wrong_flags_are_told_before_anything_is_done(tmp_path, words, expected):
    done = ablate(tmp_path, *words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--fixed_temp"], "the variant without_itc does not go with these flags"),
        (["--only", "full mlm_alone", "--contrast_batch", "64"], "the variant mlm_alone does not"),
        (["--only", "itc_alone without"], "there is no variant without\n"),
    ],
)
def test_what_a_variant_cannot_take_is_told_before_another_is_trained(tmp_path, words, expected):
    needed = ["--model_weights", "w.pth", "--train_csv", "p.csv", "--data_root", "d"]
    done = ablate(tmp_path, *needed, "--output", "out", *words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_table_comes_out_and_what_is_finished_is_kept(tmp_path):
    material = make_material(tmp_path / "mit Leerzeichen")
    write_data_set(tmp_path / "tasks" / "OCTID")
    words = [
        "--model_weights", material.weights, "--train_csv", material.csv,
        "--text_encoder", material.text_encoder, "--data_root", "tasks", "--output", "out",
        "--only", "itc_alone", "--max_epochs", "1", "--batch_size", "8", "--accelerator", "cpu",
        "--val_fraction", "0.34", "--num_workers", "0",
    ]  # fmt: skip
    probing = ["--", "--seed", "0", "1", "--views", "2", "--device", "cpu", "--num_workers", "0"]
    first = ablate(tmp_path, *words, *probing)
    assert first.returncode == 0, first.stderr
    table = (tmp_path / "out" / "report" / "table.md").read_text(encoding="utf-8")
    names = ("ablation/base", "ablation/full", "ablation/itc_alone")
    assert [f"| {name.replace('_', chr(92) + '_')} |" in table for name in names] == [True] * 3
    written = {p: p.stat().st_mtime_ns for p in tmp_path.glob("out/models/*/*/best-model.ckpt")}
    assert len(written) == 2

    again = ablate(tmp_path, *words, *probing)
    assert again.returncode == 0, again.stderr
    assert {p: p.stat().st_mtime_ns for p in written} == written
    other = ablate(tmp_path, *words, "--lr", "0.1", *probing)
    assert other.returncode == 2
    assert "other settings" in other.stderr
