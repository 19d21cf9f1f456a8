"""reproduce.sh, rehearsed on small checkpoints and data sets in the published layouts."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from linprobe.prepare.registry import DATASETS
from linprobe.report.summary import MEAN as MEAN_OF_REPORT
from linprobe.reproduce import MEAN, PAPER, TASKS, ReproduceConfig, table
from retfiner.common.errors import InputError
from tests.helpers import downloads
from tests.helpers.refinement import write_pairs, write_text_encoder
from tests.helpers.scripts import copy_repository, paste
from tests.retfiner.vision.layouts import filled, mae, refined, urfound, visionfm, vit_shapes

FEW = ("--probe", "seed=0", "views=1", "device=cpu", "num_workers=0", "epochs=3", "warmup_epochs=1")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return copy_repository(tmp_path_factory.mktemp("reproduced"))


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
    downloads.write_duke(folder / "Duke_iAMD", n_bscans=3, per_class=8)
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
    done = paste("./reproduce.sh", repository)
    assert done.returncode == 2
    for name in ("RETFound", "UrFound", "VisionFM", "RetFiner-R", "RetFiner-U", "RetFiner-V"):
        assert re.search(rf"of {name}: \S*python \.\./pretrained_weights/get\.py {name}$",
                         done.stderr, re.M)  # fmt: skip
    for name in TASKS:
        where = DATASETS[name].where
        assert f"- {name}: download it from {where} into _downloads/{name}/" in done.stderr
    assert not (repository / "linear_probing" / "__reproduce").exists()
    done = paste("./reproduce.sh --model RETFind", repository)
    assert done.returncode == 2 and "expected: RETFound, UrFound, VisionFM" in done.stderr
    done = paste("./reproduce.sh --own RETFound=nowhere.pth", repository)
    assert "nowhere.pth: --own RETFound=PATH names no file" in done.stderr


def test_a_table_of_what_the_report_lacks_is_refused(tmp_path):
    names = ("task", "base", "refined", "data_set", "base_mean", "refined_mean", "change")
    who = ("RETFound", "RetFiner-R")
    rows = [("classes", *who, name, 50, 51.5, 1.5) for name in ("OCTID", MEAN)]
    rows.append(("regression", *who, MEAN, 0.4, 0.5, 0.1))  # of the patients' age
    downloads.write_csv(tmp_path / "report" / "changes.csv", names, rows)
    own = ReproduceConfig(model=["RETFound"], data_set=["OCTID"], output=tmp_path)
    assert "| RETFound | Mean | 50.00 | 51.50 | +1.50 |  |  | +5.8 |" in table(own)
    with pytest.raises(InputError, match="no RETFound and RetFiner-R on OCTDL"):
        table(dataclasses.replace(own, data_set=["OCTID", "OCTDL"]))


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
    done = paste(train, repository, timeout=1500)
    assert done.returncode == 0, done.stderr

    line = f"./reproduce.sh {' '.join(FEW)}"
    first = paste(line, repository, timeout=1500)
    assert first.returncode == 0, first.stderr
    assert "no refinement of UrFound of your own" in first.stderr
    assert first.stdout.count("prepare_dataset.py") == 7
    text = (home / "__reproduce" / "table.md").read_text(encoding="utf-8")
    assert text in first.stdout
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines()[2:]]
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
    again = paste(line, repository, timeout=1500)
    assert again.returncode == 0, again.stderr
    assert "prepare_dataset.py" not in again.stdout
    kept = {path: path.stat().st_mtime_ns for path in results.rglob("seed*/predictions.csv")}
    assert kept.items() <= written.items() and len(kept) == 7 * 8  # one set has an age besides
    assert (home / "__reproduce" / "table.md").read_text(encoding="utf-8") == text
