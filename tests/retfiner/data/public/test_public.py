"""Published sets of pairs, each in its layout and with its traps, to a table that trains."""

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retfiner.common.cli import parse
from retfiner.common.errors import InputError
from retfiner.data.check.prepare_pairs import PreparePairsConfig, prepare_pairs
from retfiner.data.manifest import read_splits
from retfiner.data.pair_table import Columns
from retfiner.data.probing_pictures import require_not_probed
from retfiner.data.public import PUBLIC_SETS, octdl, olives
from tests.helpers.probing_data import write_data_set
from tests.helpers.refinement import write_csv, write_image


def prepare(name, path, output, *more):
    words = ["--source", name, str(path), "--output", str(output), "--num_workers", "0", *more]
    return prepare_pairs(parse(PreparePairsConfig, "", words))


def rows_of(output, name="pairs.csv"):
    with (output / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def panel(folder, index, suffix="png"):
    write_image(folder / f"{index}.{suffix}", index)
    return (folder / f"{index}.{suffix}").read_bytes()


def write_pubmed(folder):
    """Twelve panels: OCT with and without captions, fundus, other, one without an image."""
    rows = [
        {
            "panel_id": f"p{i}", "article_id": f"PMC{i // 2}",
            "panel_image_bytes": panel(folder, i),
            "subcaption_text": f"OCT with drusen, case {i}", "in_text_mention": f"see {i}",
            "contains_cfp": False, "contains_oct": True, "contains_retinal": None,
            "contains_marked": None, "license": "CC BY-NC 4.0" if i % 2 else "CC BY 4.0",
        }
        for i in range(12)
    ]  # fmt: skip
    rows[1] |= {"subcaption_text": None, "license": None}
    rows[2] |= {"contains_oct": None, "contains_cfp": True}
    rows[3] |= {"contains_oct": False, "contains_cfp": None}
    rows[4] |= {"panel_image_bytes": None}
    rows[5] |= {"panel_image_bytes": panel(folder, 5, "jpg")}
    path = folder / "pubmed_ophtha.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_pubmed_ophtha_keeps_licences_and_unpacks_its_panels(tmp_path, capsys):
    source = write_pubmed(tmp_path / "download")
    prepare("pubmed_ophtha", source, tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 9
    by_report = {row["report"]: row for row in rows}
    assert by_report["see 1"]["licence"] == "unstated", "the mention stands in for the caption"
    assert by_report["OCT with drusen, case 5"]["licence"] == "CC BY-NC 4.0"
    assert by_report["OCT with drusen, case 5"]["image"].endswith(".jpg")
    assert by_report["OCT with drusen, case 7"]["patient_id"] == "PMC3"
    assert {row["modality"] for row in rows} == {"oct"}
    said = " ".join(capsys.readouterr().out.split())
    assert "1 panels of other kinds left out" in said
    assert "1 panels without an image left out" in said
    assert len(list((tmp_path / "out" / "panels").iterdir())) == 9, "no panel that is not wanted"
    for row in rows:
        Image.open(tmp_path / "out" / row["image"]).verify()


def test_mm_retinal_takes_the_kind_that_is_wanted(tmp_path, capsys):
    for kind, first in (("OCT", 0), ("CFP", 20), ("FFA", 40)):
        rows = []
        for i in range(first, first + 4):
            write_image(tmp_path / "mm" / kind / f"{i % 20}.png", i)
            rows.append([str(i), f"{i % 20}.png", f"caption {i}" if i else "黄斑水肿"])
        write_csv(tmp_path / "mm" / f"{kind}.csv", rows, ["", "image", "caption"])
    half = ("--val_fraction", "0.5")
    prepare("mm_retinal", tmp_path / "mm", tmp_path / "oct", *half)
    rows = rows_of(tmp_path / "oct")
    assert [row["report"] for row in rows] == ["黄斑水肿", "caption 1", "caption 2", "caption 3"]
    assert all("/OCT/" in row["image"] for row in rows), "the same name is there in three folders"
    assert "patient_id" not in rows[0]
    assert "names no patients" in " ".join(capsys.readouterr().out.split())
    prepare("mm_retinal", tmp_path / "mm", tmp_path / "cfp", "--modality", "fundus", *half)
    assert {row["report"] for row in rows_of(tmp_path / "cfp")} == {
        f"caption {i}" for i in range(20, 24)
    }


def test_oct_summary_finds_images_by_the_end_of_their_path(tmp_path):
    rows = []
    for i in range(4):
        write_image(tmp_path / "set" / "images" / f"{i}.png", i)
        rows.append([f"/home/author/data/images/{i}.png", "CNV", f"fluid below the retina {i}"])
    write_csv(tmp_path / "set" / "summary.csv", rows, ["img_path", "label", "desc"])
    prepare("oct_summary", tmp_path / "set", tmp_path / "out", "--val_fraction", "0.5")
    rows = rows_of(tmp_path / "out")
    assert [row["report"] for row in rows] == [f"fluid below the retina {i}" for i in range(4)]
    assert {row["made_from"] for row in rows} == {"published text"}


def write_olives(folder):
    """Six rows of three patients: of both studies, one with another suffix, one without grades."""
    paths = [
        "/Prime_FULL/01-001/W0/OD/0.png", "/Prime_FULL/01-001/W0/OD/1.png",
        "/Prime_FULL/02-008/W4/OS/7.png", "/TREX DME/GILA/0201GOD/V1/OD/TREXJ_000000.tif",
        "/TREX DME/TREX/0201TOS/V2/OS/TREXJ_000003.tif", "/Prime_FULL/02-008/W4/OS/8.png",
    ]  # fmt: skip
    header = [olives.PATH, "Scan (n/49)", *olives.BIOMARKERS, "Eye_ID", "BCVA", "CST", "Patient_ID"]
    rows = []
    for i, path in enumerate(paths):
        image = folder / path.lstrip("/")
        write_image(image.with_suffix(".png") if i == 3 else image, i)
        grades = [str(int(k == i)) for k in range(16)] if i < 5 else [""] * 16
        rows.append([path, str(i), *grades, "1", "70", "341.6" if i else "", "1"])
    write_csv(folder / "labels" / olives.TABLE, rows, header)
    return folder


def test_olives_makes_reports_of_biomarkers_and_says_so(tmp_path, capsys):
    prepare("olives", write_olives(tmp_path / "OLIVES"), tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert rows[0]["report"] == "Intraretinal fluid."
    assert rows[1]["report"] == "Subretinal fluid. Central subfield thickness 342 µm."
    assert [row["patient_id"] for row in rows] == [
        "PRIME_01-001", "PRIME_01-001", "PRIME_02-008", "TREX_0201", "TREX_0201",
    ]  # fmt: skip
    assert {row["made_from"] for row in rows} == {"biomarkers"}
    said = " ".join(capsys.readouterr().out.split())
    assert "5 reports are made from biomarkers by a template" in said
    assert "1 rows without any biomarker left out" in said


def test_an_unknown_biomarker_is_not_called_absent():
    cells = dict.fromkeys(olives.BIOMARKERS, "0")
    assert olives.describe(cells, "") == "No biomarker of diabetic disease."
    assert olives.describe(cells | {"SHRM": ""}, "") == "No finding among those that were graded."
    assert olives.describe(dict.fromkeys(cells, ""), "300") == ""
    attached = cells | {"Fully attached vitreous face": "1.0"}
    assert olives.describe(attached, "") == (
        "Fully attached posterior vitreous, no biomarker of diabetic disease."
    )


def write_octdl(folder, count=6):
    rows = []
    for i in range(count):
        disease = ("AMD", "DME", "NO", "RVO", "AMD", "AMD")[i % 6]
        stem = f"{disease.lower()}_{i // 2}_{i}"
        write_image(folder / "OCTDL" / disease / f"{stem}.jpg", i)
        name = stem if i % 2 else f"{stem}.jpg"
        rows.append([name, disease, "MNV_suspected" if i == 0 else "nan", "", str(i // 2)])
    header = ["file_name", "disease", "subcategory", "condition", "patient_id"]
    write_csv(folder / octdl.TABLE, rows, header)
    return folder


def test_a_biomarker_that_is_no_number_is_said():
    with pytest.raises(InputError, match="SHRM"):
        olives.describe({"SHRM": "maybe"}, "")


def test_octdl_makes_reports_of_labels(tmp_path):
    prepare("octdl", write_octdl(tmp_path / "download"), tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 6
    assert rows[0]["report"] == "Age-related macular degeneration, MNV suspected."
    assert rows[2]["report"] == "Normal retina."
    assert {row["licence"] for row in rows} == {"CC BY 4.0"}


def probed(folder, pictures, patient):
    """Write a probing set that holds pictures of elsewhere, encoded anew, and a patient's name."""
    own = write_data_set(folder / "data" / "Own")
    for i, picture in enumerate(pictures):
        Image.open(picture).save(own / "test" / "AMD" / f"other_{i}.png")
    named = sorted((own / "test" / "DME").iterdir())[0].name
    (own / "split.csv").write_text(f"image,patient\ntest/DME/{named},{patient}\n")
    return folder / "data"


def test_what_is_probed_on_is_left_out_by_picture_and_by_patient(tmp_path):
    source = write_octdl(tmp_path / "download", 12)  # patients 0 to 5, two pictures each
    data = probed(tmp_path, [source / "OCTDL" / "DME" / "dme_0_1.jpg"], patient="003")
    prepare("octdl", source, tmp_path / "out", "--not_in", str(data))
    assert {row["patient_id"] for row in rows_of(tmp_path / "out")} == {"1", "2", "4", "5"}
    problems = {
        int(row["row"]): row["problem"] for row in rows_of(tmp_path / "out", "problems.csv")
    }
    assert problems == {
        2: "patient of a probing set, who shares a picture with it",
        3: "picture of a probing set",
        8: "patient named as one of a probing set",
        9: "patient named as one of a probing set",
    }
    with pytest.raises(InputError, match="--not_in compares pixels"):
        prepare("octdl", source, tmp_path / "o", "--not_in", str(data), "--decode", "header")


def test_training_refuses_what_is_probed_on(tmp_path):
    source = write_octdl(tmp_path / "download", 12)
    data = probed(tmp_path, [source / "OCTDL" / "DME" / "dme_0_1.jpg"], patient="nobody")
    prepare("octdl", source, tmp_path / "out")
    tables = read_splits(tmp_path / "out" / "train.csv", tmp_path / "out" / "val.csv")
    require_not_probed(tables, None)
    with pytest.raises(InputError, match=r"pairs of .* are of a probing data set"):
        require_not_probed(tables, data)
    tested = sorted((data / "Own" / "test" / "AMD").iterdir())
    rows = [[str(path), f"report {path.stem}", str(i)] for i, path in enumerate(tested)]
    within = read_splits(write_csv(tmp_path / "within.csv", rows))
    require_not_probed(within, None)  # any folders may be called so
    (data / "Own" / "dataset.json").write_text("{}")
    with pytest.raises(InputError, match="in the val or test folder of a data set"):
        require_not_probed(within, None)


def test_an_exam_is_refused_for_any_of_its_images(tmp_path):
    """Not for the one in its middle alone, which stands for it elsewhere."""
    rows = []
    for exam in range(4):
        for number in range(3):
            write_image(tmp_path / f"{exam}_{number}.png", 10 * exam + number)
            rows.append([f"{exam}_{number}.png", f"report {exam}", f"p{exam}", str(exam)])
    header = ("image", "report", "patient_id", "visit")
    table = write_csv(tmp_path / "exams.csv", rows, header)
    tables = read_splits(table, val_fraction=0.25, columns=Columns(group="visit"))
    require_not_probed(tables, probed(tmp_path / "others", [], patient="nobody"))
    assert all(image.path.name != "1_2.png" for part in tables for image in part.images)
    data = probed(tmp_path, [tmp_path / "1_2.png"], patient="nobody")
    with pytest.raises(InputError, match=r"picture of a probing set.*: rows 5\n"):
        require_not_probed(tables, data)


def test_nothing_half_made_is_left_behind(tmp_path):
    source = write_octdl(tmp_path / "download", 2)
    with pytest.raises(InputError, match="single patient"):
        prepare("octdl", source, tmp_path / "out")
    assert not (tmp_path / "out" / "published.csv").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--source", "octdl"], "takes the name"),
        (["--source", "kermany", "x"], "one of pubmed_ophtha"),
        ([], "nothing says what the pairs are"),
        (["--csv", "x.csv", "--source", "octdl", "x"], "or two flags do"),
    ],
)
def test_a_source_is_named_and_alone(words, said):
    with pytest.raises(InputError, match=said):
        parse(PreparePairsConfig, "", ["--output", "out", *words])


def test_a_wrong_folder_is_said_with_the_layout(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in PUBLIC_SETS:
        with pytest.raises(InputError, match="expected"):
            prepare(name, tmp_path / "empty", tmp_path / "out")
        with pytest.raises(InputError, match="download it"):
            prepare(name, tmp_path / "nowhere", tmp_path / "out")


def test_the_page_names_each_set_with_licence_and_citation():
    page = " ".join((Path(__file__).parents[4] / "docs/public_pairs.md").read_text().split())
    for name, its in PUBLIC_SETS.items():
        for words in (name, its.licence, its.citation, its.where):
            assert words in page


def test_a_packed_set_and_another_table_are_told_what_to_do(tmp_path):
    (tmp_path / "OCTDL.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match="unpack it, and give the folder"):
        prepare("octdl", tmp_path / "OCTDL.zip", tmp_path / "out")
    write_csv(tmp_path / "OCT.csv", [["a.png", "Text."]], ("Image_ID", "caption"))
    with pytest.raises(InputError, match="a table of your own goes to --csv"):
        prepare("mm_retinal", tmp_path, tmp_path / "out")
