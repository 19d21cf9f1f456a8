"""report.py as a user runs it."""

import base64
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.probing_runs import make_predictions, write_tree

QUICK = ["--bootstrap", "50", "--swaps", "99"]
SCRIPT = Path(__file__).parents[2] / "linear_probing" / "report.py"


def run(folder, *words):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *QUICK, *words],
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
    cells = r"OCTID +20\.00 +\d+\.\d\d ± \d+\.\d\d +\d+\.\d\d ± \d+\.\d\d +[+−]\d+\.\d\d"
    assert re.search(cells, printed)  # chance beside the scores
    assert "at least 6 are needed" in printed
    assert sorted(path.name for path in folder.iterdir()) == [
        "changes.csv",
        "figures",
        "index.html",
        "methods.txt",
        "metrics.csv",
        "predictions.csv",
        "table.md",
        "table.tex",
    ]


def test_every_figure_is_there_as_png_and_pdf(report):
    figures = report[0] / "figures"
    stems = {path.stem for path in figures.iterdir()}
    assert stems == {"change", "scores", "confusion", "calibration"}
    for stem in stems:
        with Image.open(figures / f"{stem}.png") as image:
            assert min(image.size) > 300
        assert (figures / f"{stem}.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_stands_alone(report):
    folder, _ = report
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]|<link|<script|@import|url\(", page.split("base64,")[0])
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 4
    for source in sources:
        assert source.startswith("data:image/png;base64,")
        assert base64.b64decode(source.split(",")[1]).startswith(b"\x89PNG")
    without_images = re.sub(r'src="[^"]*"', "", page)
    assert not re.search(r"https?:|<link|<script|@import|url\(", without_images)
    assert "How to read this" in page
    assert 'name="viewport"' in page
    assert "weights_sha256" in page


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


def test_the_metric_can_be_chosen(report, tmp_path):
    done = run(
        tmp_path, "--results", str(report[0].parent), "--output", "auroc", "--metric", "auroc",
        "--base", "baseline/RETFound", "--refined", "refined/RETFound",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "AUROC (%) on the test split" in done.stdout


def test_three_models_one_of_them_a_table_and_label_efficiency(tmp_path):
    write_tree(tmp_path / "r", seeds=(0,), n=24, fractions=(1.0, 0.25), notes=["A note."])
    for name in ("Duke_iAMD", "OCTID"):
        theirs = make_predictions("theirs", name, 0, strength=3.0, n=24)
        place = tmp_path / f"{name}.csv"
        theirs.drop(columns=["protocol", "probe", "data_version"]).to_csv(place, index=False)
    done = run(
        tmp_path, "--results", "r", "--output", "out",
        "--base", "baseline/RETFound", "--refined", "refined/RETFound", "theirs",
        "--predictions", "Duke_iAMD.csv", "OCTID.csv", "--ordered", "OCTID=NORMAL,DR,CSR,MH,AMRD",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stems = {path.stem for path in (tmp_path / "out" / "figures").glob("*.png")}
    assert {"ranks", "label_efficiency"} <= stems
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    for expected in (
        "Leaderboard",
        "Every pair",
        "Quadratic kappa",
        "OCTID [b]",
        "A note.",
        "refined/RETFound: refined/RETFound is small.",
    ):
        assert expected in page
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "All models: Balanced accuracy" in table


def test_a_model_alone_and_the_tables_of_a_report_are_read_again(report, tmp_path):
    alone = ["--base", "baseline/RETFound"]
    done = run(tmp_path, "--results", str(report[0].parent), "--output", "one", *alone)
    assert done.returncode == 0, done.stderr
    again = run(
        tmp_path, "--results", "none", "--output", "two", *alone,
        "--predictions", "one/predictions.csv",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    metrics = [(tmp_path / name / "metrics.csv").read_bytes() for name in ("one", "two")]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--refined", "refined/UrFound"], "No predictions of a model called refined/UrFound"),
        (["--refined", "baseline/RETFound"], "named twice"),
        (["--refined", "refined/RETFound", "--metric", "accuracy"], "No such metric"),
        (["--refined", "refined/RETFound", "--protocol", "0000"], "no such predictions"),
        (["--refined", "refined/RETFound", "--no_such_flag", "1"], "no_such_flag"),
    ],
)
def test_mistakes_are_told_and_write_nothing(report, tmp_path, words, message):
    done = run(tmp_path, "--results", str(report[0].parent), "--base", "baseline/RETFound", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
