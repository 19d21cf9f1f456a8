"""From a table to exams: rows, volumes and folders put together, and what is drawn of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydicom.dataset import Dataset

from retfiner.common.cli import parse
from retfiner.common.errors import InputError
from retfiner.common.eyes import eye_of
from retfiner.data.batch import Collate
from retfiner.data.check.prepare_pairs import PreparePairsConfig, prepare_pairs
from retfiner.data.datamodule import pairs_of_tables
from retfiner.data.exams import Slices, contents_of, kind_of
from retfiner.data.fingerprint import describe_data
from retfiner.data.manifest import read_splits
from retfiner.data.pair_table import Columns, PairRow, Problem, count_problems, read_pairs
from retfiner.data.pairs import ImageCaptionDataset, NumberedPairs
from retfiner.data.report_parts import draw_sentences, findings_of
from retfiner.data.sampler import Draw
from retfiner.text.tokenizer import train_tokenizer
from retfiner.vision import EvaluationTransform
from retfiner.vision.exams import marks_of
from retfiner.vision.images import ImageAddress, read_image
from tests.helpers.image_files import bscans, dicom, write_dicom
from tests.helpers.refinement import damage_in_the_middle, write_csv, write_image

HEADER = ("image", "report", "patient_id", "exam", "eye", "modality")
TRANSFORM = EvaluationTransform(32, (0.5,) * 3, (0.5,) * 3)


def volume(path, count, seed=0):
    draws = np.random.default_rng(seed)
    np.savez(path, bscans=draws.integers(0, 256, (count, 40, 48), dtype=np.uint8))
    return path


@pytest.fixture
def table(tmp_path):
    """Six exams: a volume with a fundus image, a folder, rows of slices, single images."""
    volume(tmp_path / "a.npz", 9)
    write_image(tmp_path / "a_fundus.png", 1)
    for number in range(12):
        write_image(tmp_path / "series" / f"{number}.png", 10 + number)
    volume(tmp_path / "c.npz", 5, 3)
    for number in range(4):
        write_image(tmp_path / f"single_{number}.png", 40 + number)
    rows = [
        ["a.npz", "Drusen in the fovea.", "p1", "e1", "right", "OCT"],
        ["a_fundus.png", "", "p1", "e1", "OD", "colour fundus"],
        ["series", "Subretinal fluid.", "p2", "e1", "L", ""],
        ["c.npz#0", "Cysts.", "p3", "e1", "", ""],
        ["c.npz#4", "Cysts.", "p3", "e1", "", ""],
        ["c.npz#2", "Cysts are gone.", "p3", "e2", "", ""],
        *([f"single_{n}.png", f"No fluid, scan {n}.", f"q{n}", "", "", ""] for n in range(4)),
    ]
    return write_csv(tmp_path / "pairs.csv", rows, HEADER)


def read(table, **options):
    return read_splits(table, None, val_fraction=0.3, columns=Columns(group="exam"), **options)


def exam_of(tables, report):
    for part in tables:
        if report in part.reports:
            place = part.reports.index(report)
            return part.exams[place], part, place
    raise AssertionError(report)


def test_rows_volumes_and_folders_become_exams(table):
    tables = read(table)
    assert sum(map(len, tables)) == 8
    exam, part, place = exam_of(tables, "Drusen in the fovea.")
    assert len(exam) == 10 and part.rows[place] == 2
    places = [exam.place(number) for number in range(10)]
    assert [p.position for p in places] == [*np.linspace(0, 1, 9), None]
    assert {p.eye for p in places} == {"OD"}
    assert [p.kind for p in places] == ["bscan"] * 9 + ["fundus"]
    assert [p.image.index for p in places] == [*range(9), None]
    series, _, _ = exam_of(tables, "Subretinal fluid.")
    names = [series.place(n).image.path.name for n in range(12)]
    assert names == [f"{n}.png" for n in range(12)], "2 comes before 10"
    assert series.place(11).position == 1 and series.place(0).eye == "OS"


def test_a_group_is_of_one_patient_and_a_row_without_one_stands_alone(table):
    tables = read(table)
    assert len(exam_of(tables, "Cysts.")[0]) == 2, "p3's e1 is not p1's"
    assert [len(exam_of(tables, f"No fluid, scan {n}.")[0]) for n in range(4)] == [1] * 4


def test_what_a_run_says_of_exams(table):
    notes = " ".join(read(table)[0].notes)
    assert "of 1 to 12 images (median 1); 5 of one image" in notes


def test_exams_of_one_image_alone_are_told(tmp_path):
    for number in range(4):
        write_image(tmp_path / f"{number}.png", number)
    rows = [[f"{n}.png", f"Finding {n}.", f"p{n}", "e", "", ""] for n in range(4)]
    notes = " ".join(read(write_csv(tmp_path / "t.csv", rows, HEADER))[0].notes)
    assert "4 of one image: --group_column changes nothing" in notes


@pytest.mark.parametrize("shards", [(), ("--shards", "2")])
def test_a_checked_table_holds_the_same_exams(table, tmp_path, shards):
    words = ["--csv", table, "--output", tmp_path / "out", "--num_workers", "0", "--group_column",
             "exam", "--val_fraction", "0.3", *shards]  # fmt: skip
    summary = prepare_pairs(parse(PreparePairsConfig, "", [str(word) for word in words]))
    assert "8 exams, written as a row for each of their 29 images" in " ".join(summary.notes)
    assert "--group_column exam" in summary.next_command
    checked = read_splits(tmp_path / "out" / "train.csv", tmp_path / "out" / "val.csv",
                          columns=Columns(group="exam"))  # fmt: skip
    for part in read(table):
        for report, exam in zip(part.reports, part.exams, strict=True):
            found, _, _ = exam_of(checked, report)
            assert len(found) == len(exam)
            for n in range(len(exam)):
                ours, theirs = found.place(n), exam.place(n)
                assert ours[1:] == theirs[1:]
                assert np.array_equal(read_image(ours.image), read_image(theirs.image))


def test_a_missing_column_names_those_that_are_there(table):
    with pytest.raises(InputError, match="visit") as caught:
        read_splits(table, None, columns=Columns(group="visit"))
    assert "exam" in str(caught.value)


def test_differing_reports_name_their_rows_and_no_group(tmp_path):
    for number in range(6):
        write_image(tmp_path / f"{number}.png", number)
    rows = [[f"{n}.png", f"Finding {n}.", f"p{n}", "Doe", "", ""] for n in range(5)]
    rows += [["5.png", "Another finding.", "p0", "Doe", "", ""]]
    path = write_csv(tmp_path / "t.csv", rows, HEADER)
    with pytest.raises(InputError, match=r"exam with differing reports \(rows 2 and 7") as caught:
        read(path)
    assert "Doe" not in str(caught.value)
    tables = read(path, on_bad_row="skip")
    assert sum(map(len, tables)) == 4 and len(tables[0].skipped) == 2


def test_an_empty_folder_and_a_volume_that_is_none(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 nothing")
    rows = [["empty", "A.", "p", "", "", ""], ["bad.npz", "Drusen.", "q", "", "", ""]]
    with pytest.raises(InputError, match="folder without images") as caught:
        read(write_csv(tmp_path / "t.csv", rows, HEADER))
    assert "bad.npz" in str(caught.value)


def test_exams_that_share_a_file_are_no_negatives_of_each_other(table):
    tables = read(table)
    cysts, gone = (exam_of(tables, r)[0] for r in ("Cysts.", "Cysts are gone."))
    assert cysts.identity == gone.identity
    others = {e.identity for part in tables for e in part.exams}
    assert len(others) == 7


@pytest.mark.parametrize(
    ("how", "most", "expected"),
    [
        ("central", 3, [3, 4, 5]),
        ("even", 3, [1, 4, 7]),
        ("even", 20, [*range(9)]),
        ("central", 1, [4]),
        ("even", 1, [4]),
        ("random", 3, [1, 4, 7]),
    ],
)
def test_which_slices_are_used(table, how, most, expected):
    exam, _, _ = exam_of(read(table), "Drusen in the fovea.")
    chosen = Slices(how, most + 1 if most > 1 else 1).choose(exam)
    assert chosen == [*expected, 9] if most > 1 else chosen == expected


def test_random_slices_are_others_in_each_epoch_and_the_same_again(table):
    exam, _, _ = exam_of(read(table), "Subretinal fluid.")
    draws = [Slices("random", 4, seed=1).choose(exam, 4, epoch) for epoch in (0, 1, 2, 0)]
    assert draws[0] == draws[3] and len({tuple(d) for d in draws}) == 3
    assert all(len(set(d)) == 4 and d == sorted(d) for d in draws)
    assert Slices("random", 4, seed=2).choose(exam, 4, 0) != draws[0]


def dataset(table, slices=None, cache=False):
    tables = read(table)
    _, part, place = exam_of(tables, "Drusen in the fovea.")
    return ImageCaptionDataset(part, TRANSFORM, cache, slices), place


def test_an_item_has_the_images_with_their_marks(table):
    data, place = dataset(table, Slices("even", 4))
    item = data[place]
    assert item.images.shape == (4, 3, 32, 32) and item.report == "Drusen in the fovea."
    expected = [marks_of(p, "OD", "bscan") for p in (1 / 8, 4 / 8, 7 / 8)]
    torch.testing.assert_close(
        item.marks, torch.tensor([*expected, marks_of(None, "OD", "fundus")])
    )
    cached, place = dataset(table, Slices("even", 4), cache=True)
    for _ in range(2):
        torch.testing.assert_close(cached[place].images, item.images, rtol=0, atol=0.01)


def test_the_loader_tells_the_epoch(table):
    data, place = dataset(table, Slices("random", 4))
    numbered = NumberedPairs(data)
    first, again, other = (numbered[Draw(place, e)].item.images for e in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(numbered[place].item.images, data[place].images)


def batch_of(table, **options):
    pairs = pairs_of_tables(read(table), (TRANSFORM, TRANSFORM), slices=Slices("even", 4))
    numbered = pairs.numbered[0]
    tokenizer = train_tokenizer(pairs.manifests[0].reports * 2, 200)
    collate = Collate(tokenizer, 30, (3, 32, 32), **options)
    return collate([numbered[i] for i in range(len(numbered))]), pairs.manifests[0]


def test_a_batch_of_exams(table):
    (batch, _), manifest = batch_of(table)
    sizes = tuple(min(4, len(exam)) for exam in manifest.exams)
    assert batch.groups.sizes == sizes and len(batch.images) == sum(sizes)
    assert batch.groups.marks.shape[0] == sum(sizes) and batch.total == len(sizes)


def test_images_of_an_exam_that_fail(table):
    damage_in_the_middle(table.parent / "a_fundus.png")
    (batch, _), manifest = batch_of(table)
    if "Drusen in the fovea." in manifest.reports:
        assert isinstance(batch, InputError) and "row 2" in str(batch)
        (batch, left_out), _ = batch_of(table, on_bad_row="skip")
        assert len(left_out) == 1 and "a_fundus.png" in left_out[0][1]
        assert batch.groups.sizes[manifest.reports.index("Drusen in the fovea.")] == 3


def test_a_volume_that_changes_is_other_data(table):
    pairs = pairs_of_tables(read(table), (TRANSFORM, TRANSFORM))
    before = describe_data(pairs)["data_sha256"]
    volume(table.parent / "a.npz", 8)
    changed = pairs_of_tables(read(table), (TRANSFORM, TRANSFORM))
    assert describe_data(changed)["data_sha256"] != before


def test_dicom_files_are_in_the_order_of_their_series(tmp_path):
    (tmp_path / "s").mkdir()
    for number, name in enumerate(["z", "a", "m"]):
        pixels = np.full((40, 40), number * 50, np.uint8)
        write_dicom(tmp_path / "s" / name, dicom(pixels, InstanceNumber=number + 1))
    rows = [["s", "Drusen.", "p", "", "", ""], ["s", "Fluid.", "q", "", "", ""]]
    exam = read(write_csv(tmp_path / "t.csv", rows, HEADER))[0].exams[0]
    assert [exam.place(n).image.path.name for n in range(3)] == ["z", "a", "m"]


def test_words_for_eyes_and_kinds():
    assert [eye_of(w) for w in ("OD", "left", "R", "both", "")] == ["OD", "OS", "OD", "OU", ""]
    words = ("OCT", "OCTA", "Colour fundus", "IR", "FAF", "ultrasound", "")
    kinds = ["bscan", "angiography", "fundus", "infrared", "autofluorescence", "other", ""]
    assert [kind_of(word) for word in words] == kinds


STRUCTURED = (
    "Indication: AMD, follow-up. Findings: Drusen in both eyes. CMT: 310 µm. Technique: Spectralis."
    " Impression: Dry AMD. Recommendation: six months."
)


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (STRUCTURED, "Drusen in both eyes. CMT: 310 µm. Dry AMD."),
        ("Befund: Drusen. Procedere: Kontrolle.", "Drusen."),
        ("检查所见：黄斑水肿。建议：复查。", "黄斑水肿。"),
        ("Drusen, no fluid.", "Drusen, no fluid."),
        ("Findings: ", "Findings: "),
    ],
)
def test_findings_of_a_structured_report(report, expected):
    assert findings_of(report) == expected


LONG = "Drusen in the fovea. Subretinal fluid nasal. Cysts temporal. No traction. Choroid thick."


def test_drawn_sentences_fit_and_keep_their_order():
    tokenizer = train_tokenizer([LONG] * 3, 200)
    found = {draw_sentences(LONG, tokenizer, 12, 0, "sentences", epoch) for epoch in range(12)}
    assert len(found) > 2
    for text in found:
        assert len(tokenizer(text)["input_ids"]) <= 12
        assert [LONG.index(s) for s in text.split(". ")] == sorted(
            LONG.index(s) for s in text.split(". ")
        )
    assert draw_sentences(LONG, tokenizer, 60, 0) == LONG, "what fits stays whole"


def test_equal_reports_say_the_same_and_validation_is_fixed():
    tokenizer = train_tokenizer([LONG] * 3, 200)
    collate = Collate(tokenizer, 12, (3, 32, 32), sentence_seed=5)
    assert collate.part_of(LONG, 3) == collate.part_of(LONG, 3)
    assert collate.part_of(LONG) == collate.part_of(LONG)
    assert len({collate.part_of(LONG, epoch) for epoch in range(8)}) > 2
    assert Collate(tokenizer, 12, (3, 32, 32)).part_of(LONG) == LONG


def test_a_folder_of_dicom_is_read_series_by_series_and_what_is_no_image_left_out(tmp_path):
    for i in range(6):
        image = dicom(bscans(6)[i], SeriesInstanceUID=f"1.2.{i % 2}", InstanceNumber=6 - i)
        write_dicom(tmp_path / "visit" / f"{i}.dcm", image)
    report = Dataset()
    report.file_meta, report.Modality = dicom(bscans(1)[0]).file_meta, "SR"
    write_dicom(tmp_path / "visit" / "DICOMDIR", report)
    (tmp_path / "visit" / "._0.dcm").write_bytes(b"\0\5\x16\7")
    found = contents_of(ImageAddress(tmp_path / "visit"))
    assert [content.address.path.stem for content in found] == ["4", "2", "0", "5", "3", "1"]


def test_exams_are_told_apart_as_patients_are_and_eyes_that_are_none_are_said(tmp_path):
    for number in range(6):
        write_image(tmp_path / f"{number}.png", number)
    visits, eyes = ("1", "1.0", "01", "2", "2", "2"), ("OD", "L", "", "?", "o.d.", "rechts")
    rows = [[f"{n}.png", "Finding.", f"p{n // 3}", visits[n], eyes[n], ""] for n in range(6)]
    table = read_pairs(write_csv(tmp_path / "t.csv", rows, HEADER), Columns(group="exam"))
    assert len({row.group for row in table.rows}) == 2
    assert any("1 cells of the column of eyes name none" in warning for warning in table.warnings)


def test_a_row_with_a_volume_is_named_once(tmp_path):
    row = PairRow(tmp_path / "t.csv", 7, "a", ImageAddress(tmp_path / "a.npy"), "x", "p")
    found = [Problem(n, "image", "black", "", True) for n in range(9)]
    [count] = count_problems(found, [row] * 9, Columns())
    assert (count.rows, count.first) == (9, ["7"])
