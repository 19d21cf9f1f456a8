"""Pairs in tar files, here and on a server, are the pairs of the table they were made of."""

import random
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retfiner.api import load_model
from retfiner.common.cli import parse
from retfiner.common.errors import InputError
from retfiner.data.check.prepare_pairs import PreparePairsConfig, prepare_pairs
from retfiner.data.exams import Content
from retfiner.data.manifest import read_manifest, read_splits
from retfiner.data.pair_table import Columns
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.retrieval.evaluate import evaluate_retrieval
from retfiner.refine import find_tables, read_tables
from retfiner.training.resume import AUTO
from retfiner.vision.images import ImageAddress, read_image, remote, why_unusable
from retfiner.vision.images.tar import members_of
from tests.helpers.file_server import file_server
from tests.helpers.forks import forking, kill_again_and_again
from tests.helpers.image_files import dicom, write_dicom, write_e2e, write_png
from tests.helpers.refinement import make_material, read_csv, report_of, settings, write_csv
from tests.helpers.same import assert_same_run


def prepare(csv, output, *more):
    words = ["--csv", csv, "--output", output, "--num_workers", "0", "--val_fraction", "0.3", *more]
    prepare_pairs(parse(PreparePairsConfig, "", [str(word) for word in words]))
    return output


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="module")
def tables(material, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    prepare(material.csv, folder / "loose")
    prepare(material.csv, folder / "tars", "--shards", "3")
    return folder


@pytest.fixture
def server(tables):
    with file_server() as server:
        files = (tables / "tars").iterdir()
        server.files |= {f"/set/{path.name}": path.read_bytes() for path in files}
        yield server


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    with forking(tmp_path_factory.mktemp("forks") / "log.txt") as forks:
        yield forks


def run(forks, material, output, **changes):
    changes = {"val_csv": None, "checkpoint_every_n_steps": 1, "batch_size": 4} | changes
    assert forks.run(settings(material, output, **changes)) == 0, forks.log.read_text()[-3000:]
    (folder,) = output.iterdir()
    return folder


# -- what is written -----------------------------------------------------------------------------


def test_pairs_of_shards_are_those_of_files(tables):
    for name in ("train.csv", "val.csv"):
        loose, tars = (read_manifest(tables / kind / name) for kind in ("loose", "tars"))
        assert (loose.reports, loose.patients) == (tars.reports, tars.patients)
        for ours, theirs in zip(tars.images, loose.images, strict=True):
            assert np.array_equal(read_image(ours), read_image(theirs))
    shards = sorted(path.name for path in (tables / "tars").glob("*.tar"))
    assert shards == [f"train-0000{k}.tar" for k in range(3)] + ["val-00000.tar", "val-00001.tar"]


def test_webdataset_reads_them(tables):
    wds = pytest.importorskip("webdataset")
    files = sorted(str(path) for path in (tables / "tars").glob("train-*.tar"))
    samples = list(wds.WebDataset(files, shardshuffle=False).decode("l"))
    manifest = read_manifest(tables / "tars" / "train.csv")
    assert [sample["txt"] for sample in samples] == manifest.reports
    assert [sample["json"]["patient_id"] for sample in samples] == manifest.patients
    for sample, image in zip(samples, manifest.images, strict=True):
        pixels = sample["png"] if "png" in sample else sample["jpg"]
        assert np.array_equal(pixels, read_image(image))


def test_webdatasets_own_shards_are_read_by_name(tmp_path):
    wds = pytest.importorskip("webdataset")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 24, 32), np.uint8)
    with wds.TarWriter(str(tmp_path / "own.tar")) as tar:
        for k in range(3):
            tar.write({"__key__": f"{k:04d}", "png": Image.fromarray(pixels[k]), "txt": "cyst"})
    rows = [[f"own.tar#{k:04d}.png", f"cyst {'abc'[k]}", f"p{k}"] for k in range(3)]
    manifest = read_manifest(write_csv(tmp_path / "t.csv", rows))
    assert np.array_equal(read_image(manifest.images[2]), pixels[2] / np.float32(255))
    assert "no 7.png" in why_unusable(tmp_path / "own.tar#7.png")


def test_every_kind_of_image_is_kept(tmp_path):
    """Also in the second generation: shards of shards."""
    rng = np.random.default_rng(1)
    gray = rng.integers(0, 256, (40, 48), np.uint8)
    write_png(tmp_path / "twelve.png", rng.integers(0, 4096, (40, 48), np.uint16), 12)
    Image.fromarray(gray).save(tmp_path / "a.tif")
    Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(tmp_path / "eye.jpg")
    shutil.copy(tmp_path / "eye.jpg", tmp_path / "other.png")  # Pillow goes by content
    write_e2e(tmp_path / "scan.e2e", {1: rng.integers(20000, 60000, (3, 40, 48), np.uint16)})
    np.savez(tmp_path / "v.npz", bscans=rng.integers(0, 256, (2, 40, 48), np.uint8))
    write_dicom(tmp_path / "d.dcm", dicom(gray[::-1]))
    names = ["twelve.png", "a.tif", "eye.jpg#modality=fundus", "scan.e2e#2", "v.npz#bscans#1",
             "d.dcm", "a.tif", "twelve.png#bits=12"]  # fmt: skip
    rows = [[name, report_of(k), f"p{k % 6}"] for k, name in enumerate(names)]
    rows[6][2] = "p1"  # the image of row 1, with another report
    rows.append(["other.png", "drusen", "p2"])
    table = write_csv(tmp_path / "t.csv", rows)
    first = prepare(table, tmp_path / "first", "--shards", "2")
    again = prepare(first / "pairs.csv", tmp_path / "again", "--shards", "1", "--split_column",
                    "split")  # fmt: skip
    for folder in (first, again):
        found = read_manifest(folder / "pairs.csv")
        of_report = dict(zip(found.reports, found.images, strict=True))
        assert len(of_report) == len(rows), "nothing is left out"
        for name, report, _ in rows:
            image = of_report[report]
            exact = 1 / 131070 if name == "scan.e2e#2" else 0
            wanted = read_image(tmp_path / name if "#" not in name else f"{tmp_path / name}")
            assert np.abs(read_image(image) - wanted).max() <= exact
            assert image.path.suffix == ".tar"
        assert of_report[report_of(1)] == of_report[report_of(6)], "one image is known as one"


def test_fewer_shards_leave_no_old_ones_behind(material, tmp_path):
    output = prepare(material.csv, tmp_path / "out", "--shards", "4")
    (output / "mine.tar").write_bytes(b"mine")
    prepare(material.csv, output, "--shards", "1", "--overwrite")
    assert sorted(p.name for p in output.glob("*.tar")) == [
        "mine.tar", "train-00000.tar", "val-00000.tar",
    ]  # fmt: skip
    read_manifest(output / "train.csv")
    prepare(material.csv, output, "--overwrite")
    assert [p.name for p in output.glob("*.tar")] == ["mine.tar"]


def test_exams_of_a_shard_are_negatives_of_each_other(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for k in range(4):
            Image.fromarray(np.full((40, 40), 50 * k, np.uint8)).save(tmp_path / f"{k}.png")
            tar.add(tmp_path / f"{k}.png", f"{k}.png")
    rows = [[f"x.tar#{k}.png", f"finding {'aabb'[k]}", "p", "uuvv"[k]] for k in range(4)]
    table = write_csv(tmp_path / "t.csv", rows, ("image", "report", "patient_id", "visit"))
    exams = read_manifest(table, columns=Columns(group="visit")).exams
    assert [len(exam) for exam in exams] == [2, 2]
    assert len({exam.identity for exam in exams}) == 2
    assert [exams[0].place(n).position for n in range(2)] == [0, 1]
    assert isinstance(exams[0].parts[0].content, Content)


# -- what is broken ------------------------------------------------------------------------------


def test_what_a_tar_lacks_is_said_before_training(tables, tmp_path):
    folder = shutil.copytree(tables / "tars", tmp_path / "tars")
    cut, other = folder / "train-00001.tar", folder / "train-00002.tar"
    cut.write_bytes(cut.read_bytes()[:5000])
    other.write_bytes((folder / "train-00000.tar").read_bytes())
    with pytest.raises(InputError) as caught:
        read_splits(folder / "train.csv", folder / "val.csv")
    message = str(caught.value)
    assert "5,000 bytes: the file is cut" in message
    kept = read_manifest(folder / "train.csv", on_bad_row="skip")
    reasons = [reason for _, reason in kept.skipped]
    assert any("take table and tars of one run" in reason for reason in reasons)
    good = members_of(folder / "train-00000.tar", 0)
    assert len([image for image in kept.images if image.path.name == "train-00000.tar"]) == sum(
        name.endswith((".png", ".jpg")) for name in good
    )
    assert "There is no tar" in why_unusable(folder / "none.tar#0.png@512+9")


# -- what is trained -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_of_shards_is_the_run_of_files_to_the_bit(forks, material, tables, server, tmp_path):
    loose = run(forks, material, tmp_path / "a", train_csv=tables / "loose")
    wanted = (loose / "metrics.csv").read_bytes()
    weights = torch.load(loose / "best-model.ckpt", weights_only=True)["state_dict"]
    url = Path(f"{server.address}/set")
    remotely = {"train_csv": url / "train.csv", "val_csv": url / "val.csv"}
    for name, changes in (
        ("b", {"train_csv": tables / "tars", "num_workers": 2}),
        ("c", remotely | {"num_workers": 2}),
        ("d", {"train_csv": Path(f"file://{tables / 'tars' / 'train.csv'}"),
               "val_csv": Path(f"file://{tables / 'tars' / 'val.csv'}")}),
    ):  # fmt: skip
        folder = run(forks, material, tmp_path / name, **changes)
        assert (folder / "metrics.csv").read_bytes() == wanted, name
        found = torch.load(folder / "best-model.ckpt", weights_only=True)["state_dict"]
        assert all(torch.equal(found[key], weights[key]) for key in weights)
    parts = [part for method, path, part in server.asked if method == "GET" and ".tar" in path]
    assert parts and all(part.startswith("bytes=") for part in parts), "never a whole shard"
    (folder,) = (tmp_path / "c").iterdir()
    config = EvaluateConfig("retrieval", folder, url / "pairs.csv", num_workers=0)
    notes = evaluate_retrieval(config, load_model(folder, "cpu").loaded)["notes"]
    assert f"trained on {len(read_manifest(url / 'train.csv'))} of these images" in notes[0]


def test_a_killed_run_of_shards_goes_on_to_the_sample(forks, material, tables, server, tmp_path):
    url = Path(f"{server.address}/set")
    changes = {"train_csv": url / "train.csv", "val_csv": url / "val.csv", "batch_size": 4,
               "checkpoint_every_n_steps": 1}  # fmt: skip
    whole = run(forks, material, tmp_path / "whole", **changes)
    config = settings(material, tmp_path / "killed", resume=AUTO, **changes)
    kill_again_and_again(forks, config, 2, random.Random(0))
    assert_same_run(whole, run(forks, material, tmp_path / "killed", resume=AUTO, **changes))


# -- servers -------------------------------------------------------------------------------------


def test_a_server_is_asked_again_and_what_it_lacks_is_said(server, tables, monkeypatch):
    monkeypatch.setattr(remote, "PAUSES", (0.001,) * 3)
    url = Path(f"{server.address}/set")
    server.statuses = [503]
    manifest = read_manifest(url / "train.csv")
    server.statuses = [503, 500]
    image = manifest.images[0]
    assert read_image(image).shape == (40, 48)
    with pytest.raises(InputError, match=r"http://127.*none.csv cannot be read"):
        read_manifest(url / "none.csv")
    assert "cannot be read" in why_unusable(f"{url}/none.tar#0.png@512+9")
    assert "where it lies" in why_unusable(f"{url}/train-00000.tar#00000000.png")
    cut = why_unusable(f"{url}/train-00000.tar#0.png@900000+9")
    assert "the file is cut" in cut and f"{server.address}/set" in cut
    here = read_manifest(tables / "tars" / "train.csv", image_root=url)
    assert here.images == manifest.images, "a table may lie elsewhere than its shards"
    server.ranges = False
    with pytest.raises(InputError, match="whole files only"):
        read_image(image)


def test_whatever_fsspec_knows_is_read(tables):
    """An object store in memory, in place of one that costs money."""
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for path in (tables / "tars").iterdir():
        store.pipe(f"/bucket/{path.name}", path.read_bytes())
    found, here = (
        read_manifest(at / "val.csv") for at in (Path("memory://bucket"), tables / "tars")
    )
    assert found.reports == here.reports
    for ours, theirs in zip(found.images, here.images, strict=True):
        assert np.array_equal(read_image(ours), read_image(theirs))


def test_a_folder_stands_for_its_tables(material, tables, tmp_path):
    config = find_tables(settings(material, tmp_path, train_csv=tables / "tars"))
    assert (config.train_csv.name, config.val_csv.name) == ("train.csv", "val.csv")
    assert sum(map(len, read_tables(config))) == len(read_csv(material.csv))


def test_an_address_in_a_tar_is_written_as_it_is_read():
    for text in ("a/x.tar#7.png@512+9", "x.tar#a/b.jpg@1+2#modality=fundus"):
        assert str(ImageAddress.parse(text)) == text
