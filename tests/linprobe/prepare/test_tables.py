"""Tables as text: what is read, and what is refused."""

from __future__ import annotations

import pytest

from linprobe.prepare.tables import read_table
from retfiner.common.errors import InputError


def test_a_csv_with_semicolons_empty_lines_and_a_mark(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffa;b\n1; x \n\n;\n2;\n", encoding="utf-8")
    found = read_table(path, ("a", "b")).to_dict("records")
    assert found == [{"a": "1", "b": "x"}, {"a": "2", "b": ""}]
    with pytest.raises(InputError, match="it lacks c"):
        read_table(path, ("b", "c"))


def test_a_sheet_as_text(tmp_path):
    from openpyxl import Workbook

    book = Workbook()
    for row in (["n", "grade", None], [1, 1.0, None], [None, None, None], ["0002", "x ", 5]):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    rows = read_table(tmp_path / "a.xlsx", ("n", "grade")).to_dict("records")
    assert [(row["n"], row["grade"]) for row in rows] == [("1", "1"), ("0002", "x")]


def test_longer_rows_than_the_header_lose_nothing(tmp_path):
    """pandas would move all cells to the left, or cut a label off at its comma."""
    path = tmp_path / "a.csv"
    path.write_text("image,label\na.png,drusen,\nb.png,normal\n")
    found = read_table(path, ("image", "label")).to_dict("records")
    assert found == [{"image": "a.png", "label": "drusen"}, {"image": "b.png", "label": "normal"}]
    path.write_text("image,label\na.png,drusen,\nb.png,drusen, soft\n")
    with pytest.raises(InputError, match="row 3 has 3 cells under 2 names"):
        read_table(path, ("image", "label"))
