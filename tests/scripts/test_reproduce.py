"""reproduce.sh, rehearsed on small checkpoints and data sets in the published layouts."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from linprobe.prepare.registry import DATASETS
from linprobe.report.summary import MEAN as MEAN_OF_REPORT
from linprobe.reproduce import MEAN, PAPER, TASKS
from tests.helpers import downloads
from tests.helpers.refinement import write_pairs, write_text_encoder
from tests.retfiner.vision.layouts import filled, mae, refined, urfound, visionfm, vit_shapes

ROOT = Path(__file__).parents[2]
FEW = ("--probe", "seed=0", "views=1", "device=cpu", "num_workers=0", "epochs=3", "warmup_epochs=1")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of all code in a folder with a blank, so that nothing is written into this one."""
    copy = tmp_path_factory.mktemp("reproduced") / "my clone"
    left = shutil.ignore_patterns("_data", "_weights", "_features", "__*s", "__pycache__", "models")
    for folder in ("RetFiner", "linear_probing"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=left)
    (copy / "pretrained_weights").mkdir()
    return copy


def run(repository, line):
    environment = os.environ | {
        "PYTHONPATH": f"{repository}/RetFiner:{repository}/linear_probing",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(
        ["bash", "-c", line], cwd=repository / "linear_probing", env=environment,
        capture_output=True, text=True, timeout=1500, check=False,
    )  # fmt: skip


def vit(seed):
    """A small ViT of the family, whose number of heads follows from its width."""
    return filled(vit_shapes(192, 2, 16, 197), seed)


def write_checkpoints(folder):
    """As their authors publish them: three base models and their released refinements."""
    for seed, (name, content) in enumerate(
        {
            "RETFound_mae_natureOCT": mae(vit(0)),
            "urfound_mm": urfound(vit(1)),
            "VFM_OCT_weights": visionfm(vit(2), vit(3)),
            "RetFiner_RETFound": refined(vit(4), text_width=32),
            "RetFiner_UrFound": refined(vit(5)),
            "RetFiner_VisionFM": refined(vit(6)),
        }.items()
    ):
        assert seed < 6
        torch.save(content, folder / f"{name}.pth")


def noise(number, size=downloads.SIZE):
    """Another picture for each number: none is a copy of another, as they look."""
    return np.random.default_rng(number).integers(0, 250, size, dtype=np.uint8)


def write_downloads(folder):
    """The seven as their authors publish them, a few patients of each class."""
    for v in range(16):
        label, subject = ("AMD", "Control")[v % 2], 1001 + v // 2
        volume = downloads.stack(range(100 * v, 100 * v + 3), axis=2)
        downloads.write_duke_volume(folder / "Duke_iAMD", label, subject, volume)
    downloads.write_gamma(folder / "GAMMAv2", ("non", "early", "mid_advanced") * 6)
    downloads.write_harvard(folder / "Harvard_Glaucoma", ("yes", "no") * 8)
    downloads.write_octdl(folder / "OCTDL", per_class=8)
    downloads.write_octid(folder / "OCTID", per_class=8)
    for c, label in enumerate(("AMD", "DME", "NORMAL")):
        for case in range(1, 9):
            place = folder / "Noor_Eye_Hospital" / label / f"{label} ({case})"
            downloads.write_noor_volume(place, 1000 * c + 20 * case, 3)
    rows = []
    for c, label in enumerate(("NORMAL", "DRUSEN", "CNV")):
        for patient in range(1, 9):
            name = f"{label}/{patient}/OD/000_{label.lower()}.jpg"
            place = folder / "NEHUT2D" / "NEH_UT_2021RetinalOCTDataset" / name
            downloads.write_image(place, 5000 + 10 * c + patient)
            rows.append((patient, label, "OD", 0, label.capitalize(), name))
    header = downloads.NEHUT_HEADER
    downloads.write_csv(folder / "NEHUT2D" / "data_information.csv", header, rows)


def test_tasks_and_names_are_known():
    assert set(TASKS) <= set(DATASETS) and len(TASKS) == 7
    assert set(PAPER.values()) == {5.8, 3.9, 2.1}
    assert MEAN == MEAN_OF_REPORT


def test_all_that_is_missing_is_said_at_once(repository):
    done = run(repository, "./reproduce.sh")
    assert done.returncode == 2
    for name in ("RETFound", "UrFound", "VisionFM", "RetFiner-R", "RetFiner-U", "RetFiner-V"):
        assert re.search(rf"of {name}: \S*python \.\./pretrained_weights/get\.py {name}$",
                         done.stderr, re.M)  # fmt: skip
    for name in TASKS:
        where = DATASETS[name].where
        assert f"- {name}: download it from {where} into _downloads/{name}/" in done.stderr
    assert not (repository / "linear_probing" / "__reproduce").exists()
    done = run(repository, "./reproduce.sh --model RETFind")
    assert done.returncode == 2 and "expected: RETFound, UrFound, VisionFM" in done.stderr
    done = run(repository, "./reproduce.sh --own RETFound=nowhere.pth")
    assert "nowhere.pth: --own RETFound=PATH names no file" in done.stderr


@pytest.mark.slow
def test_from_names_and_downloads_to_the_table(repository, monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "pattern", noise)
    home = repository / "linear_probing"
    write_checkpoints(repository / "pretrained_weights")
    write_downloads(home / "_downloads")
    write_pairs(tmp_path)
    encoder = write_text_encoder(tmp_path / "bert")
    train = (
        f"python ../RetFiner/train.py --model_weights RETFound --text_encoder {encoder} --train_csv"
        f" {tmp_path}/pairs.csv --output_dir ../RetFiner/models --max_epochs 1 --batch_size 8"
        " --num_workers 0 --accelerator cpu && python"
        " ../RetFiner/get_vision_backbone_for_linprobing.py"
        " --path_to_model ../RetFiner/models/RETFound_*/best-model.ckpt"
    )
    done = run(repository, train)
    assert done.returncode == 0, done.stderr

    line = f"./reproduce.sh {' '.join(FEW)}"
    first = run(repository, line)
    assert first.returncode == 0, first.stderr
    assert "no refinement of UrFound of your own" in first.stderr
    assert first.stdout.count("prepare_dataset.py") == 7
    table = (home / "__reproduce" / "table.md").read_text(encoding="utf-8")
    assert table in first.stdout
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    assert [row[:2] for row in rows] == [[m, t] for m in PAPER for t in (*TASKS, MEAN)]
    assert {row[0]: row[7] for row in rows if row[7]} == {
        "RETFound": "+5.8", "UrFound": "+3.9", "VisionFM": "+2.1",
    }  # fmt: skip
    for row in rows:
        assert float(row[4]) == pytest.approx(float(row[3]) - float(row[2]), abs=0.011)
        assert bool(row[5]) is (row[0] == "RETFound")

    # What is done is not done again.
    results = home / "__reproduce" / "results"
    written = {path: path.stat().st_mtime_ns for path in results.rglob("predictions.csv")}
    assert len(written) >= 7 * 7
    again = run(repository, line)
    assert again.returncode == 0, again.stderr
    assert "prepare_dataset.py" not in again.stdout
    kept = {path: path.stat().st_mtime_ns for path in results.rglob("seed*/predictions.csv")}
    assert kept.items() <= written.items() and len(kept) == 7 * 7
    assert (home / "__reproduce" / "table.md").read_text(encoding="utf-8") == table
