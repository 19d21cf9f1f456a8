"""report.py as a user runs it."""

import base64
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.probing_runs import write_tree

SCRIPT = Path(__file__).parents[2] / "linear_probing" / "report.py"


def run(folder, *words):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_tree(folder / "__results", seeds=(0, 1), n=24)
    done = run(folder, "--base", "baseline/RETFound", "--refined", "refined/RETFound")
    assert done.returncode == 0, done.stderr
    return folder / "__results" / "report", done.stdout


def test_the_table_and_where_things_lie_are_printed(report):
    folder, printed = report
    for expected in ("Duke_iAMD", "OCTID", "Mean", "p (Holm)", "__results/report/index.html"):
        assert expected in printed
    assert re.search(r"OCTID +\d+\.\d\d ± \d+\.\d\d +\d+\.\d\d ± \d+\.\d\d +[+−]\d+\.\d\d", printed)
    assert sorted(path.name for path in folder.iterdir()) == [
        "figures",
        "index.html",
        "runs.csv",
        "table.csv",
        "table.md",
        "table.tex",
        "table_document.tex",
    ]


def test_every_figure_is_there_as_png_and_pdf(report):
    figures = report[0] / "figures"
    stems = {path.stem for path in figures.iterdir()}
    assert stems == {
        "change", "confusion_RETFound", "map_RETFound", "reliability_RETFound", "roc_RETFound"
    }  # fmt: skip
    for stem in stems:
        with Image.open(figures / f"{stem}.png") as image:
            assert min(image.size) > 300
        assert (figures / f"{stem}.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_stands_alone(report):
    folder, _ = report
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|<link|<script|@import|url\(", page.split("base64,")[0])
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 5
    for source in sources:
        assert source.startswith("data:image/png;base64,")
        assert base64.b64decode(source.split(",")[1]).startswith(b"\x89PNG")
    without_images = re.sub(r'src="[^"]*"', "", page)
    assert not re.search(r"https?:|<link|<script|@import|url\(", without_images)
    assert "How to read this" in page
    assert 'name="viewport"' in page
    assert "baseline-RETFound" in page  # the weights' fingerprint


def test_the_same_runs_give_the_same_files(report, tmp_path):
    folder, _ = report
    done = run(
        tmp_path, "--results", str(folder.parent), "--output", "again",
        "--base", "baseline/RETFound", "--refined", "refined/RETFound",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for path in folder.rglob("*.*"):
        again = tmp_path / "again" / path.relative_to(folder)
        assert again.read_bytes() == path.read_bytes(), path.name


def test_the_metric_can_be_chosen_and_the_map_left_out(report, tmp_path):
    done = run(
        tmp_path, "--results", str(report[0].parent), "--output", "auroc", "--metric", "auroc",
        "--map_points", "0", "--base", "baseline/RETFound", "--refined", "refined/RETFound",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "AUROC (%) on the test split" in done.stdout
    assert not list((tmp_path / "auroc" / "figures").glob("map*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--refined", "refined/UrFound"], "No results of refined/UrFound"),
        (["--refined", "refined/RETFound", "baseline/RETFound"], "do not pair up"),
        (["--refined", "refined/RETFound", "--metric", "accuracy"], "No such metric"),
        (["--refined", "refined/RETFound", "--map_points", "-1"], "is negative"),
        (["--refined", "refined/RETFound", "--fingerprint", "0000"], "such a fingerprint"),
        (["--refined", "refined/RETFound", "--no_such_flag", "1"], "no_such_flag"),
    ],
)
def test_mistakes_are_told_and_write_nothing(report, tmp_path, words, message):
    done = run(tmp_path, "--results", str(report[0].parent), "--base", "baseline/RETFound", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
