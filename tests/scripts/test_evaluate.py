"""evaluate.py as a user runs it."""

from __future__ import annotations

import json

import pytest

from retfiner.refine import refine
from tests.helpers.refinement import make_material, settings
from tests.helpers.scripts import assert_clear_error, run_script


@pytest.fixture(scope="module")
def refined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    material = make_material(folder, pairs=24, patients=8)
    return material, refine(settings(material, folder / "models", max_epochs=1)).folder


def test_retrieval(refined, tmp_path):
    material, folder = refined
    done = run_script(
        "evaluate.py", "--task", "retrieval", "--model", folder, "--data", material.csv,
        "--output", tmp_path / "numbers.json", "--save", tmp_path / "found.csv",
        "--num_workers", "1", "--device", "cpu", "--precision", "32-true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "recall@10" in done.stdout and "chance" in done.stdout
    assert "re-ranked" in done.stdout
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers["part"] == "validation"
    entry = numbers["retrieval"]["itm"]["image_to_text"]["recall@1"]
    assert set(entry) == {"value", "interval", "chance"}
    assert (tmp_path / "found.csv").read_text().startswith("direction,query_row,place,found_row")


def test_mistakes_are_told_plainly(refined, tmp_path):
    material, folder = refined
    common = ("evaluate.py", "--model", folder, "--data", material.csv)
    assert_clear_error(
        run_script(*common, "--task", "report", "--rerank_top", "4"),
        "--rerank_top has no effect here", "--task retrieval",
    )  # fmt: skip
    assert_clear_error(
        run_script(*common, "--task", "zero_shot"), "there is no folder", str(material.csv)
    )
