"""embed.py: each image's vector is the model's own, whatever way the run took to the file."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from retfiner import load_model
from retfiner.common.cli import parse
from retfiner.common.errors import InputError
from retfiner.embed import run as embedding
from retfiner.embed.config import EmbedConfig
from retfiner.refine import refine
from tests.helpers.image_files import write_e2e
from tests.helpers.refinement import make_material, settings, write_csv
from tests.helpers.scripts import run_script


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"), pairs=12, patients=6)


@pytest.fixture(scope="module")
def run(material, tmp_path_factory):
    return refine(settings(material, tmp_path_factory.mktemp("runs"), max_epochs=1)).folder


def embed(model, data, output, *more):
    words = ["--model", model, "--data", data, "--output", output, "--num_workers", "0",
             "--device", "cpu", "--batch_size", "4", *more]  # fmt: skip
    return embedding.embed(parse(EmbedConfig, "", [str(word) for word in words]))


def vectors(path):
    table = pd.read_parquet(path)
    return table, np.stack(table["vector"].dropna().to_list())


def test_vectors_are_the_models_own(material, run, tmp_path):
    model = load_model(run, device="cpu")
    images = sorted((material.csv.parent / "images").iterdir())
    table, found = vectors(embed(run, images[0].parent, tmp_path / "f.parquet"))
    assert table["image"].tolist() == [str(path) for path in images]
    assert np.allclose(found, model.features(images), atol=1e-5)
    _, shared = vectors(embed(run, material.csv, tmp_path / "s.parquet", "--space", "shared"))
    by_row = [material.csv.parent / name for name in pd.read_csv(material.csv)["image"]]
    assert np.allclose(shared, model.encode_images(by_row), atol=1e-5)
    about = pq.read_schema(tmp_path / "s.parquet").metadata[embedding.ABOUT].decode()
    assert '"space": "shared"' in about


def test_volumes_are_taken_whole_and_exams_kept(material, tmp_path):
    bits = np.random.default_rng(0).integers(0, 60000, (3, 16, 24), dtype=np.uint16)
    write_e2e(tmp_path / "a.e2e", {1: bits})
    (tmp_path / "broken.png").write_bytes(b"no picture")
    rows = [["a.e2e", "e1"], ["a.e2e#1", "e1"], ["broken.png", "e2"]]
    data = write_csv(tmp_path / "t.csv", rows, ("image", "exam"))
    table, found = vectors(embed(material.weights, data, tmp_path / "f.parquet"))
    assert [name.rpartition("#")[2] for name in table["image"][:4]] == ["0", "1", "2", "1"]
    assert table["exam"].tolist() == ["e1"] * 4 + ["e2"]
    assert table["row"].tolist() == [2, 2, 2, 3, 4]
    assert len(found) == 4
    assert np.allclose(found[1], found[3], atol=1e-6)
    assert "no image" in table["problem"].iloc[4] or "cannot be used" in table["problem"].iloc[4]
    alone, _ = vectors(embed(material.weights, tmp_path / "a.e2e", tmp_path / "v.parquet"))
    assert len(alone) == 3 and alone["row"].isna().all()
    data.write_text(data.read_text() + "a.e2e#1,e3,e4\n")
    with pytest.raises(InputError, match="row 5: 3 fields where the header has 2"):
        embed(material.weights, data, tmp_path / "g.parquet")


def test_a_slice_that_is_none_is_a_problem_and_no_whole_volume(material, tmp_path):
    bits = np.random.default_rng(0).integers(0, 60000, (3, 16, 24), dtype=np.uint16)
    write_e2e(tmp_path / "a.e2e", {1: bits})
    rows = [["a.e2e", "2"], ["a.e2e", "middle"], ["a.e2e", ""]]
    for more in ([], ["--part_size", "1"]):
        data = write_csv(tmp_path / "t.csv", rows, ("image", "slice"))
        output = embed(material.weights, data, tmp_path / "f.parquet", "--overwrite", *more)
        table = pd.read_parquet(output)
        assert table["row"].tolist() == [2, 3, 4, 4, 4]
        assert "the slice is 'middle'" in table["problem"][1] and table["vector"][1] is None
        assert table["problem"].isna().sum() == 4


def test_a_run_that_was_cut_off_goes_on(material, tmp_path, monkeypatch, capsys):
    data, output = material.csv.parent / "images", tmp_path / "f.parquet"
    whole = embed(material.weights, data, tmp_path / "whole.parquet")
    decoded = []
    real = embedding._embed_part

    def failing(encoder, images, config, title):
        if len(decoded) == 5:
            raise KeyboardInterrupt
        decoded.extend(image.address for image in images)
        return real(encoder, images, config, title)

    monkeypatch.setattr(embedding, "_embed_part", failing)
    with pytest.raises(KeyboardInterrupt):
        embed(material.weights, data, output, "--part_size", "5")
    assert not output.exists()
    with pytest.raises(InputError, match="parts of another run"):
        embed(material.weights, data, output, "--part_size", "4")
    decoded.clear()
    decoded.append("one more, so that nothing fails")
    capsys.readouterr()
    embed(material.weights, data, output, "--part_size", "5")
    assert "1 of 3 parts done before" in capsys.readouterr().out
    assert len(decoded) == 1 + 7, "what was done is not decoded again"
    assert np.array_equal(vectors(output)[1], vectors(whole)[1])
    assert not output.with_suffix(".parts").exists()
    with pytest.raises(InputError, match="is there already"):
        embed(material.weights, data, output)


@pytest.mark.slow
def test_devices_share_the_work_and_give_the_same(material, tmp_path):
    data = material.csv.parent / "images"
    words = ["--model", material.weights, "--data", data, "--output", tmp_path / "two.parquet",
             "--part_size", "5", "--devices", "2", "--num_workers", "0", "--device", "cpu",
             "--batch_size", "4"]  # fmt: skip
    done = run_script("embed.py", *words)
    assert done.returncode == 0, done.stderr
    one = embed(material.weights, data, tmp_path / "one.parquet")
    assert np.allclose(vectors(tmp_path / "two.parquet")[1], vectors(one)[1], atol=1e-6)


def test_wrong_settings_are_said(material, tmp_path):
    with pytest.raises(InputError, match="no space that it shares"):
        embed(material.weights, material.csv, tmp_path / "f.parquet", "--space", "shared")
    with pytest.raises(InputError, match="no weights at"):
        embed(tmp_path / "none.pth", material.csv, tmp_path / "f.parquet")
    with pytest.raises(InputError, match="holds no image"):
        embed(material.weights, tmp_path, tmp_path / "g.parquet")
    with pytest.raises(InputError, match="is a Parquet file"):
        embed(material.weights, material.csv, tmp_path / "f.csv")
