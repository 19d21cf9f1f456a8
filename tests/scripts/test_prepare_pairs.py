"""prepare_pairs.py as a user runs it: what is found, what is written, and what never is."""

import csv
import json
import re
import runpy
import shutil
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from retfiner.common.errors import InputError
from retfiner.data.check.prepare_pairs import PreparePairsConfig, prepare_pairs
from retfiner.vision.preprocessing import EvaluationTransform
from tests.helpers.refinement import (
    Material,
    damage_in_the_middle,
    load_pairs,
    read_csv,
    report_of,
    settings,
    write_base_model,
    write_csv,
    write_image,
    write_text_encoder,
)
from tests.helpers.scripts import REFINEMENT, assert_clear_error, run_script

SECRETS = ("Quacksalber", "Zaphod", "12.03.2021", "19450312", "1234567", "Vogon", "a.b@c.example")
"""Words that must not be shown, in reports and in file names."""

REPORTS_THAT_NAME = (
    "Seen by Dr. Quacksalber, Bruch's membrane intact.",
    "Drusen unchanged since 12.03.2021.",
    "MRN 1234567, no fluid.",
    "Questions to a.b@c.example, please.",
)


def make_collection(folder, named=False):
    """Thirty sound pairs of ten patients, and one row of each kind of problem."""
    rows = []
    for i in range(30):
        write_image(folder / "images" / f"{i:02d}.png", i)
        rows.append([f"images/{i:02d}.png", report_of(i), f"patient-{i % 10}"])
    images = folder / "images"
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(images / "black.png")
    shutil.copy(images / "00.png", images / "copy.png")
    shutil.copy(images / "01.png", images / "broken.png")
    damage_in_the_middle(images / "broken.png")
    rows += [
        ["images/black.png", "cyst", "patient-1"],  # 32
        ["images/broken.png", "cyst", "patient-1"],  # 33
        ["images/nowhere.png", "cyst", "patient-1"],  # 34
        ["images/02.png", "", "patient-2"],  # 35
        ["images/02.png", "n/a", "patient-2"],  # 36
        ["images/03.png", "cyst", ""],  # 37
        rows[4],  # 38: the row again
        ["images/copy.png", rows[0][1], "patient-0"],  # 39: the same bytes and report
        ["images/05.png", "another report", "patient-5"],  # 40
        ["images/copy.png", "no fluid", "patient-9"],  # 41: the image of patient-0
    ]
    if named:
        for i, report in enumerate(REPORTS_THAT_NAME):
            rows.append([f"images/{10 + i}.png", report, f"patient-{i}"])
        for name in ("Mrs_Zaphod.png", "eye_19450312.png"):
            write_image(images / name, len(name))
            rows.append([f"images/{name}", "drusen", "patient-3"])
        shutil.copy(images / "broken.png", images / "Herr_Vogon.png")
        rows.append(["images/Herr_Vogon.png", "drusen", "patient-3"])
    return write_csv(folder / "pairs.csv", rows)


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    write_text_encoder(folder / "bert")
    return make_collection(folder)


@pytest.fixture(scope="module")
def done(collection):
    """The script's run, and the folder it wrote."""
    output = collection.parent / "checked"
    words = ("--csv", collection, "--output", output, "--text_encoder", collection.parent / "bert",
             "--num_workers", "2", "--max_text_tokens", "12")  # fmt: skip
    return run_script("prepare_pairs.py", *words), output


class Resources(HTMLParser):
    """What a page loads, its text, and whether its tags are closed in order."""

    void = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.links, self.open, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.links += [v for k, v in attrs if k in ("src", "href", "srcset", "data")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_every_problem_is_named_by_row_and_column(done):
    run, output = done
    assert run.returncode == 0, run.stderr
    problems = read_csv(output / "problems.csv")
    found = {(int(row), column, kind, action) for row, column, kind, _, action, _ in problems}
    assert found == {
        (32, "image", "image is all black", "left out"),
        (33, "image", "image cannot be read", "left out"),
        (34, "image", "image cannot be read", "left out"),
        (35, "report", "empty report", "left out"),
        (36, "report", "placeholder for a report", "left out"),
        (37, "patient_id", "no patient named", "left out"),
        (38, "", "duplicate row", "left out"),
        (39, "image", "copy of an image with the same report", "left out"),
        (7, "report", "same image with another report", "kept"),
        (40, "report", "same image with another report", "kept"),
        (2, "report", "same image with another report", "kept"),
        (41, "report", "same image with another report", "kept"),
        (2, "patient_id", "same image under another patient", "kept"),
        (41, "patient_id", "same image under another patient", "kept"),
    }
    details = " ".join(row[3] for row in problems)
    assert "broken.png" in details
    assert "nowhere.png" in details


def test_the_tables_hold_the_rest_split_by_patient_and_image(done):
    _, output = done
    pairs = read_csv(output / "pairs.csv")
    assert len(pairs) == 32
    assert {pair[0] for pair in pairs} >= {"../images/00.png", "../images/copy.png"}
    train, val = read_csv(output / "train.csv"), read_csv(output / "val.csv")
    assert sorted(train + val) == sorted(pair[:3] for pair in pairs)
    assert [pair[3] for pair in pairs] == ["val" if pair[:3] in val else "train" for pair in pairs]
    patients = [{row[2] for row in part} for part in (train, val)]
    assert patients[0] and patients[1] and not patients[0] & patients[1]
    assert not any(("patient-0" in side) != ("patient-9" in side) for side in patients)


def test_training_reads_them_without_another_flag_also_when_all_is_moved(done, tmp_path):
    _, output = done
    moved = tmp_path / "moved"
    shutil.copytree(output.parent, moved)
    weights = write_base_model(tmp_path / "base.pth")
    material = Material(moved / "checked" / "train.csv", weights, moved / "bert")
    transform = EvaluationTransform(32, (0.0,), (1.0,), 1)
    pairs = load_pairs(settings(material, tmp_path / "m", val_fraction=0.1), transform)
    assert pairs.train_size + pairs.validation_size == len(read_csv(output / "train.csv"))
    image, report = pairs.train[0]
    assert image.shape == (1, 32, 32)
    assert report
    given = settings(material, tmp_path / "m", val_csv=moved / "checked" / "val.csv")
    assert load_pairs(given, transform).validation_size == len(read_csv(output / "val.csv"))


def test_what_is_printed_is_short_and_ends_with_the_next_command(done):
    run, output = done
    lines = run.stdout.splitlines()
    assert len(lines) < 30
    assert max(map(len, lines[:-1])) <= 110
    assert "40 in pairs.csv" in lines[0]
    assert "of 10 patients" in run.stdout
    assert lines[-1].endswith(
        f"python train.py --model_weights path/to/visionmodel.pth --train_csv {output}/train.csv "
        f"--val_csv {output}/val.csv --text_encoder {output.parent}/bert --max_text_tokens 12"
    )


def test_the_numbers_agree_with_the_tables(done):
    _, output = done
    summary = json.loads((output / "summary.json").read_text())
    pairs = read_csv(output / "pairs.csv")
    assert (summary["rows"], summary["pairs"], summary["rows_left_out"]) == (40, 32, 8)
    assert summary["rows_with_problems"] == 12
    assert summary["rows_flagged"] is None
    reports = summary["reports"]
    assert (reports["unit"], reports["limit"]) == ("WordPieces", 12)
    assert sum(reports["histogram"].values()) == 32
    cut = sum(n for length, n in reports["histogram"].items() if int(length) > 12)
    assert 0 < cut < 32
    assert reports["cut"] == pytest.approx(cut / 32)
    assert reports["distinct"] == len({pair[1] for pair in pairs})
    assert summary["images"]["sizes"] == [[40, 48, 30]]
    assert summary["images"]["distinct"] == 30
    assert summary["split"]["train"]["pairs"] == len(read_csv(output / "train.csv"))
    assert summary["patients"]["patients"] == 10


def test_the_page_stands_alone_and_shows_a_dozen_pairs(done):
    _, output = done
    text = (output / "summary.html").read_text()
    page = Resources(text)
    assert page.open == []
    kinds = Counter(link.partition(",")[0] for link in page.links)
    assert kinds == {"data:image/jpeg;base64": 12, "data:image/svg+xml;base64": 3}
    assert not re.search(r"https?://|@import|url\(", text)
    words = " ".join(page.words)
    assert "no patient and no image is on two sides" in words.lower()
    known = {pair[1] for pair in read_csv(output / "pairs.csv")}
    shown = re.findall(r"<figcaption>(.*?)<small>row (\d+)</small>", text)
    assert len(shown) == 12
    source = read_csv(output.parent / "pairs.csv")
    for report, row in shown:
        assert report in known
        assert source[int(row) - 2][1] == report
    assert len(text) < 400_000


def test_another_run_writes_the_same_bytes(done, collection):
    _, output = done
    again = collection.parent / "again"
    prepare_pairs(
        PreparePairsConfig(csv=collection, output=again, text_encoder=collection.parent / "bert",
                           max_text_tokens=12, num_workers=0)
    )  # fmt: skip
    for path in output.iterdir():
        ours, theirs = path.read_text(), (again / path.name).read_text()
        for folder in ("checked", "again"):
            ours, theirs = (t.replace(f"/{folder}", "") for t in (ours, theirs))
        ours, theirs = (re.sub(r'"num_workers": \d', "", t) for t in (ours, theirs))
        assert ours == theirs, path.name


def test_another_seed_draws_other_patients(done, collection, tmp_path):
    _, output = done
    sides = [read_csv(output / "val.csv")]
    for seed in (1, 2, 3):
        prepare_pairs(
            PreparePairsConfig(
                csv=collection, output=tmp_path / str(seed), seed=seed, num_workers=0
            )
        )
        sides.append(read_csv(tmp_path / str(seed) / "val.csv"))
    assert len({tuple(row[2] for row in side) for side in sides}) > 1


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A collection with words that must not be shown, and the script's run over it."""
    folder = tmp_path_factory.mktemp("named")
    table = make_collection(folder / "data", named=True)
    words = ("--csv", table, "--output", folder / "checked", "--deidentify", "--strict")
    return table, folder / "checked", run_script("prepare_pairs.py", *words, "--num_workers", "0")


def assert_says_nothing(texts):
    for name, text in texts.items():
        assert [secret for secret in SECRETS if secret in text] == [], name


def test_what_names_a_patient_is_never_printed_or_written(named):
    _, output, run = named
    written = {path.name: path.read_text() for path in output.iterdir()}
    assert set(written) == {"pairs.csv", "train.csv", "val.csv", "problems.csv", "summary.json",
                            "summary.html"}  # fmt: skip
    assert_says_nothing(written | {"stdout": run.stdout, "stderr": run.stderr})
    flagged = {(int(row), column, problem) for row, column, problem, *_ in
               read_csv(output / "problems.csv") if "may hold" in problem}  # fmt: skip
    assert flagged == {
        (42, "report", "may hold: name"),
        (43, "report", "may hold: date"),
        (44, "report", "may hold: record number"),
        (45, "report", "may hold: e-mail address"),
        (46, "image", "may hold: name"),
        (47, "image", "may hold: date"),
        (48, "image", "may hold: name"),
    }
    assert "7 rows" in run.stdout
    assert "not a guarantee" in " ".join(run.stdout.split())


def test_strict_counts_problems_in_the_status(named, collection, tmp_path, monkeypatch):
    assert named[2].returncode == 1, named[2].stderr
    sound = write_csv(collection.parent / "sound.csv", read_csv(collection)[5:30])
    script = str(REFINEMENT / "prepare_pairs.py")
    words = ["--csv", sound, "--output", tmp_path / "out", "--num_workers", "0", "--strict"]
    monkeypatch.setattr("sys.argv", [script, *map(str, words)])
    runpy.run_path(script, run_name="__main__")  # ends without SystemExit: status 0
    assert (tmp_path / "out" / "summary.html").is_file()


@pytest.mark.parametrize("decode", ["full", "header"])
def test_an_error_or_an_undecoded_image_names_nobody_either(named, tmp_path, capsys, decode):
    table, *_ = named
    config = {"deidentify": True, "decode": decode, "num_workers": 0}
    prepare_pairs(PreparePairsConfig(csv=table, output=tmp_path / "out", **config))
    assert_says_nothing({path.name: path.read_text() for path in (tmp_path / "out").iterdir()})
    bad = write_csv(
        tmp_path / "bad.csv", read_csv(table)[-7:]
    )  # its images are not found from here
    with pytest.raises(InputError, match="no row of") as caught:
        prepare_pairs(PreparePairsConfig(csv=bad, output=tmp_path / "none", **config))
    assert "--flagged_rows keep" in str(caught.value)
    printed = capsys.readouterr()
    assert_says_nothing({"error": str(caught.value), "out": printed.out, "err": printed.err})


def test_flagged_rows_can_be_kept_and_are_then_in_the_tables_alone(named, tmp_path, capsys):
    table, *_ = named
    config = PreparePairsConfig(
        csv=table, output=tmp_path / "out", deidentify=True, flagged_rows="keep", num_workers=0
    )
    summary = prepare_pairs(config)
    assert summary.pairs == 38
    printed = capsys.readouterr()
    texts = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert "Quacksalber" in texts["pairs.csv"]
    said = {name: texts[name] for name in ("problems.csv", "summary.json", "summary.html")}
    assert_says_nothing(said | {"out": printed.out, "err": printed.err})


def test_a_split_by_column_is_checked(tmp_path):
    for i in range(8):
        write_image(tmp_path / f"{i}.png", i)
    rows = [
        ["0.png", "a b", "p", "Train"], ["1.png", "a c", "p", "val"],
        ["2.png", "a d", "q", "validation"], ["3.png", "a e", "r", "test"],
        ["4.png", "a f", "r", "train"], ["5.png", "a g", "s", "fold 3"],
        ["6.png", "a h", "t", "test"], ["7.png", "a i", "u", "dev"],
    ]  # fmt: skip
    table = write_csv(tmp_path / "t.csv", rows, ("image", "report", "patient_id", "part"))
    config = PreparePairsConfig(
        csv=table, output=tmp_path / "out", split_column="part", num_workers=0
    )
    summary = prepare_pairs(config)
    problems = {(int(r[0]), r[1], r[2]) for r in read_csv(tmp_path / "out" / "problems.csv")}
    assert problems == {
        (3, "patient_id", "patient on both sides"),
        (5, "patient_id", "patient on both sides"),
        (7, "part", "split is none of train, val, test"),
    }
    assert [row[2] for row in read_csv(tmp_path / "out" / "train.csv")] == ["p", "r"]
    assert [row[2] for row in read_csv(tmp_path / "out" / "val.csv")] == ["q", "u"]
    assert ["../6.png", "a h", "t", "test"] in read_csv(tmp_path / "out" / "pairs.csv")
    assert summary.split_is_given


def test_a_split_by_two_files_is_checked(tmp_path):
    for i in range(6):
        write_image(tmp_path / f"{i}.png", i)
    shutil.copy(tmp_path / "0.png", tmp_path / "copy.png")
    train = write_csv(tmp_path / "t.csv", [["0.png", "a", "p"], ["1.png", "b", "q"]])
    val = write_csv(
        tmp_path / "v.csv",
        [["2.png", "c", "q"], ["3.png", "d", "r"], ["copy.png", "a", "s"], ["4.png", "e", "u"]],
    )
    prepare_pairs(
        PreparePairsConfig(csv=train, output=tmp_path / "out", val_csv=val, num_workers=0)
    )
    leaks = [r for r in read_csv(tmp_path / "out" / "problems.csv") if "both sides" in r[2]]
    assert [(r[0], r[1], r[2], r[3], r[5]) for r in leaks] == [
        ("2", "patient_id", "patient on both sides", "row 3 of t.csv is in train", "v.csv"),
        ("4", "image", "image on both sides", "row 2 of t.csv is in train", "v.csv"),
    ]
    assert [row[2] for row in read_csv(tmp_path / "out" / "val.csv")] == ["r", "u"]


def test_without_patients_and_with_slices(tmp_path):
    volume = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 48), dtype=np.uint8))
              for i in range(4)]  # fmt: skip
    volume[0].save(tmp_path / "v.tif", save_all=True, append_images=volume[1:])
    rows = [["v.tif", f"finding {'abcd'[i]}", str(i)] for i in range(4)] + [["v.tif", "a e", "9"]]
    table = write_csv(tmp_path / "t.csv", rows, ("file", "text", "slice"))
    summary = prepare_pairs(
        PreparePairsConfig(csv=table, output=tmp_path / "out",
                           image_column="file", report_column="text",
                           patient_column="none", num_workers=0, val_fraction=0.5)
    )  # fmt: skip
    with (tmp_path / "out" / "train.csv").open(newline="") as file:
        header, *train = csv.reader(file)
    assert header == ["image", "report"]
    assert {row[0] for row in train} < {f"../v.tif#{i}" for i in range(4)}
    assert summary.patients is None
    assert summary.next_command.endswith("--patient_column none")
    (problem,) = read_csv(tmp_path / "out" / "problems.csv")
    assert problem[:3] == ["6", "file", "image cannot be read"]


def test_nothing_is_replaced_unless_asked(collection, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "val.csv").write_text("precious")
    config = dict(csv=collection, output=tmp_path / "out", num_workers=0, decode="header")
    with pytest.raises(InputError, match="not empty"):
        prepare_pairs(PreparePairsConfig(**config))
    assert (tmp_path / "out" / "val.csv").read_text() == "precious"
    prepare_pairs(PreparePairsConfig(**config, overwrite=True))
    assert read_csv(tmp_path / "out" / "val.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_errors_in_plain_words(collection, tmp_path):
    words = ("--output", tmp_path / "out", "--num_workers", "0")
    latin = tmp_path / "latin.csv"
    latin.write_bytes("image,report,patient_id\na.png,øþý,p\n".encode("latin1"))
    assert_clear_error(
        run_script("prepare_pairs.py", "--csv", latin, *words), "is not UTF-8", "--table_encoding"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latin.csv"]


def test_images_that_are_looked_for_in_the_wrong_place(collection, tmp_path):
    config = PreparePairsConfig(
        csv=collection, output=tmp_path / "out", image_root=tmp_path / "nowhere", num_workers=0
    )
    with pytest.raises(InputError, match="no row of") as caught:
        prepare_pairs(config)
    message = str(caught.value)
    assert "image cannot be read: 40 rows" in message
    assert "row 2: image cannot be read (there is no file" in message
    assert "--image_root" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split_column": "a", "val_csv": "b"}, "--split_column and --val_csv"),
        ({"flagged_rows": "keep"}, "needs --deidentify"),
        ({"max_text_tokens": 2}, "no room for a word"),
        ({"seed": 2**32}, "--seed is too large"),
    ],
)
def test_settings_that_do_not_go_together(collection, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        PreparePairsConfig(csv=collection, output=tmp_path / "out", **changes)
