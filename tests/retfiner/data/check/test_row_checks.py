"""What is wrong with rows, from rows and image facts alone."""

from dataclasses import replace
from pathlib import Path

from retfiner.common.placeholders import is_placeholder, says_nothing
from retfiner.data.check.images import ImageFacts, Intensity
from retfiner.data.check.row_checks import (
    find_duplicates,
    find_identifiers,
    find_unusable_images,
)
from retfiner.data.pair_table import Columns, PairRow, find_unusable_rows
from retfiner.vision.images import ImageAddress

ORDINARY = Intensity(0.0, 0.9, 0.3, 0.0)


def row(image="a.png", report="cyst", patient="p", number=2, **more):
    return PairRow(Path(more.pop("file", "pairs.csv")), number, image, ImageAddress(Path(image)),
               report, patient, **more)  # fmt: skip


def rows_of(*cells):
    return [row(*c, number=2 + i) for i, c in enumerate(cells)]


def facts_of(**pixels):
    """Readable images by name: equal letters are equal pixels, equal words equal bytes."""
    return {
        ImageAddress(Path(f"{name}.png")): ImageFacts(None, p, p[0], (4, 4), ORDINARY)
        for name, p in pixels.items()
    }


def read(rows, facts):
    """Rows with what their images' files hold."""
    return [replace(row, facts=facts.get(row.image)) for row in rows]


def told(problems):
    return [(p.index, p.role, p.kind, p.left_out) for p in problems]


def test_rows_that_nothing_can_be_learned_from():
    rows = [
        row(),
        row(image=""),
        row(report=""),
        row(report="."),
        row(report="12"),
        row(report="See above."),
        row(report="N/A"),
        row(patient=""),
        row(patient=None),
        row(side=None),
        row(broken="5 fields where the header has 3"),
    ]
    assert told(find_unusable_rows(rows)) == [
        (1, "image", "no image named", True),
        (2, "report", "empty report", True),
        (3, "report", "empty report", True),
        (4, "report", "empty report", True),
        (5, "report", "placeholder for a report", True),
        (6, "report", "placeholder for a report", True),
        (7, "patient", "no patient named", True),
        (9, "split", "split is none of train, val, test", True),
        (10, "row", "cells that cannot be told apart", True),
    ]


def test_short_reports_are_no_placeholders():
    assert not any(map(is_placeholder, ("normal", "AMD", "No fluid", "none seen", "dry", "IRF")))
    assert all(
        map(
            is_placeholder, ("NaN", "none", "[pending]", "TBD", "No report.", "- see above", "n.a.")
        )
    )


def test_what_a_spreadsheet_writes_for_nothing_is_a_placeholder_and_short_findings_are_none():
    assert all(
        map(
            is_placeholder,
            ("#N/A", "#NAME?", "#BEZUG!", "k.A.", "s.o.", "idem", "siehe Vorbefund", "<NA>"),
        )
    )
    assert all(map(says_nothing, ("unchanged", "Stable.")))
    assert not any(map(says_nothing, ("normal", "AMD", "dry AMD")))


def test_patients_that_a_spreadsheet_or_an_unquoted_comma_made():
    rows = [
        row(patient=p)
        for p in ("1.23E+11", "1,23E+11", " seen: drusen centrally.", "unknown", "?", "12E45", "P1")
    ]
    assert told(find_unusable_rows(rows)) == [
        (0, "patient", "no patient's identifier", True),
        (1, "patient", "no patient's identifier", True),
        (2, "patient", "no patient's identifier", True),
        (3, "patient", "no patient named", True),
        (4, "patient", "no patient named", True),
    ]


def test_images_that_cannot_be_read_or_show_nothing():
    values = {
        "fine": ORDINARY,
        "black": Intensity(0.0, 0.0, 0.0, 0.0),
        "gray": Intensity(0.4, 0.4, 0.4, 0.0),
        "12bit": Intensity(0.0, 4095 / 65535, 0.01, 0.0),
        "dim": Intensity(0.0, 0.07, 0.01, 0.0),
        "white": Intensity(0.0, 1.0, 0.7, 0.6),
        "half": Intensity(0.0, 1.0, 0.7, 0.5),
    }
    facts = {ImageAddress(Path(n)): ImageFacts(None, n, n, (4, 4), v) for n, v in values.items()}
    facts[ImageAddress(Path("bad"))] = ImageFacts("bad is cut")
    facts[ImageAddress(Path("header"))] = ImageFacts(None, "x")
    rows = read([row(image=address.path.name) for address in facts], facts)
    problems = find_unusable_images(rows, set())
    names = [*values, "bad", "header"]
    assert {names[p.index]: (p.kind, p.left_out) for p in problems} == {
        "black": ("image is all black", True),
        "gray": ("image has a single gray value", True),
        "12bit": ("image is almost black", False),
        "white": ("image is saturated", False),
        "bad": ("image cannot be read", True),
    }
    assert "bad is cut" in [p.detail for p in problems]
    withheld = find_unusable_images(rows, set(range(len(rows))))
    assert len(withheld) == len(problems)
    assert not any(name in p.detail for p in withheld for name in ("bad", "black", "12bit "))


def test_an_image_whose_index_is_unclear_cannot_be_read():
    rows = [row(image="a.png", unclear="the slice is 'x'")]
    (problem,) = find_unusable_images(read(rows, facts_of(a="A")), set())
    assert (problem.detail, problem.left_out) == ("the slice is 'x'", True)


def test_the_first_of_several_equal_rows_stays():
    rows = rows_of(("a.png",), ("a.png",), ("b.png",), ("c.png",), ("d.png",))
    problems = find_duplicates(read(rows, facts_of(a="Aa", b="Aa", c="Ac", d="D")), range(5))
    assert told(problems) == [
        (1, "row", "duplicate row", True),
        (2, "image", "copy of an image with the same report", True),
        (3, "image", "copy of an image with the same report", True),
    ]
    assert [p.detail for p in problems] == [
        "row 2",
        "row 2, the same bytes",
        "row 2, the same pixels",
    ]


def test_one_image_with_differing_reports_or_patients_is_named_on_both_sides():
    rows = rows_of(("a.png", "cyst", "p"), ("b.png", "fluid", "p"), ("a.png", "cyst", "q"))
    problems = find_duplicates(read(rows, facts_of(a="A", b="A")), range(3))
    assert {(p.index, p.role, p.detail) for p in problems} == {
        (0, "report", "row 3"),
        (1, "report", "row 2, row 4"),
        (2, "report", "row 3"),
        (0, "patient", "row 4"),
        (1, "patient", "row 4"),
        (2, "patient", "row 2, row 3"),
    }
    assert not any(p.left_out for p in problems)


def test_rows_that_are_left_out_anyway_are_not_compared():
    rows = rows_of(("a.png",), ("a.png",))
    assert find_duplicates(read(rows, facts_of(a="A")), [1]) == []


def test_many_rows_of_one_image_are_counted_not_listed():
    rows = rows_of(*(("a.png", f"report {i}") for i in range(9)))
    problems = find_duplicates(read(rows, facts_of(a="A")), range(9))
    assert problems[0].detail == "row 3, row 4, row 5, row 6, row 7 and 3 more"


def test_images_of_one_gray_value_are_no_copies_of_each_other():
    white = Intensity(1.0, 1.0, 1.0, 1.0)
    facts = {ImageAddress(Path(n)): ImageFacts(None, n, "W", (4, 4), white) for n in ("a", "b")}
    assert find_duplicates(read([row(image="a"), row(image="b")], facts), range(2)) == []


def test_a_row_of_another_file_is_named_with_it():
    rows = [row(file="train.csv"), row(report="fluid", file="val.csv", number=7)]
    details = [p.detail for p in find_duplicates(read(rows, facts_of(a="A")), range(2))]
    assert details == ["row 7 of val.csv", "row 2 of train.csv"]


def test_identifiers_are_named_by_column_and_kind_alone():
    rows = [row(), row(report="seen by Dr. Quacksalber"), row(image="Mrs_Zaphod.png")]
    problems = find_identifiers(rows, leave_out=True)
    assert told(problems) == [
        (1, "report", "may hold: name", True),
        (2, "image", "may hold: name", True),
    ]
    assert not any(p.detail for p in problems)
    assert not any(p.left_out for p in find_identifiers(rows, leave_out=False))
    rows = [row(image="scans/1047099.png"), row(patient="Beispiel, Anna")]
    rows += [row(kept={"exam": "2021-03-31"}), row(kept={"exam": "visit 2"})]
    problems = find_identifiers(rows, leave_out=True)
    assert told(problems) == [
        (0, "image", "may hold: record number", False),
        (1, "patient", "may hold: name", False),
        (2, "group", "may hold: date", False),
    ]
    assert [p.column(Columns(group="visit")) for p in problems] == ["image", "patient_id", "visit"]
    assert problems[2].column(Columns()) == "exam"
