"""A training's own table is read as it was then, by whatever uses the model afterwards."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from retfiner.browse.collection import open_collection
from retfiner.browse.config import BrowseConfig
from retfiner.common.cli import parse
from retfiner.common.errors import InputError
from retfiner.embed.config import EmbedConfig
from retfiner.embed.run import embed
from retfiner.evaluation.config import EvaluateConfig
from retfiner.evaluation.run import evaluate
from retfiner.explanation.config import ExplainConfig
from retfiner.explanation.run import run as explain
from retfiner.refine import refine
from tests.helpers.refinement import make_material, report_of, settings

HEADER = ("image", "Schnitt", "report", "patient_id", "remark")
WINDOWS = "cp1255"
"""An encoding that nothing finds out by itself."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A table with volumes, B-scans counted from 1, reports with sections, in an odd encoding."""
    folder = tmp_path_factory.mktemp("trained")
    material = make_material(folder, pairs=12, patients=6)
    rng = np.random.default_rng(0)
    rows = []
    for k in range(12):
        np.save(folder / f"v{k}.npy", rng.integers(0, 256, (5, 40, 48), np.uint8))
        text = f"Indication: follow-up. Findings: {report_of(k)}"
        rows += [[f"v{k}.npy", 1 + (k + i) % 3, text, f"p{k // 2}", "מצב יציב"] for i in (0, 1)]
    table = folder / "volumes.csv"
    with table.open("w", newline="", encoding=WINDOWS) as file:
        csv.writer(file).writerows([HEADER, *rows])
    run = refine(
        settings(
            material, folder / "models", train_csv=table, max_epochs=1, first_slice=1,
            slice_column="Schnitt", table_encoding=WINDOWS, report_part="findings",
        )
    )  # fmt: skip
    images = [f"{folder / image}#{place - 1}" for image, place, *_ in rows]
    return run.folder, table, images, [report_of(k) for k in range(12) for _ in (0, 1)]


def test_written_reports_stand_beside_the_findings(trained):
    run, table, _, reports = trained
    config = EvaluateConfig(
        task="report", model=run, data=table, part="all", device="cpu", num_workers=0,
        precision="32-true",
    )  # fmt: skip
    numbers = evaluate(config)
    assert [line["reference"] for line in numbers["reports"]] == reports


def test_maps_are_of_the_bscan_and_the_findings(trained, tmp_path, capsys):
    run, table, images, reports = trained
    config = ExplainConfig(model=run, data=table, row=4, output=tmp_path, html=True, device="cpu")
    page = explain(config)[1]
    name, _, place = Path(images[2]).name.partition(".npy#")
    assert page.name == f"row_4_{name}_{place}.html"
    assert "Indication" not in page.read_text() and reports[2].split()[2] in page.read_text()
    capsys.readouterr()
    with pytest.raises(InputError, match="no such row"):
        explain(ExplainConfig(model=run, data=table, row=99, output=tmp_path, device="cpu"))


def test_the_page_and_the_vectors_are_of_the_same_bscans(trained, tmp_path):
    run, table, images, reports = trained
    collection = open_collection(BrowseConfig(model=run, data=table, device="cpu")).collection
    assert [str(image) for image in collection.subjects] == images
    assert [collection.report(k) for k in range(len(images))] == reports
    words = ["--model", run, "--data", table, "--output", tmp_path / "v.parquet", "--device", "cpu"]
    vectors = pd.read_parquet(embed(parse(EmbedConfig, "", [str(word) for word in words])))
    assert vectors["image"].tolist() == images


def test_another_table_is_read_on_its_own_and_the_script_with_the_flags_named(trained, tmp_path):
    run, table, images, _ = trained
    other = tmp_path / "other.csv"
    other.write_bytes(table.read_bytes().replace(b"follow-up", b"control"))
    words = {"task": "report", "model": run, "data": other, "device": "cpu", "num_workers": 0}
    with pytest.raises(InputError, match=r"table_encoding .*prepare_pairs\.py"):
        evaluate(EvaluateConfig(**words))
    volume = images[0].partition("#")[0]
    rows = [(volume, place, f"{report_of(place)}", "p", "") for place in range(1, 6)]
    with other.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *rows])
    page = BrowseConfig(model=run, data=other, device="cpu")
    show = ExplainConfig(model=run, data=other, row=2, output=tmp_path, device="cpu")
    for use in (lambda: evaluate(EvaluateConfig(**words)), lambda: open_collection(page),
                lambda: explain(show)):  # fmt: skip
        with pytest.raises(InputError, match=r"--first_slice 1 .*prepare_pairs\.py"):
            use()
