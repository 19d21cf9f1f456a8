"""Tables as people export them: what is read, what is asked, what is named."""

import io

import pytest

from retfiner.common.errors import InputError
from retfiner.data import workbook
from retfiner.data.encoding import find_encoding, misread, misread_as_western
from retfiner.data.table_file import read_table

COLUMNS = ["image", "report", "patient_id"]
GERMAN = "Netzhautödem über der Fovea – „gering“, 240,5 µm; größer als früher"
TEXTS = {
    "cp1252": GERMAN,
    "latin1": "Flüssigkeit über der Fovea, Ödem",
    "mac_roman": "œdème à gauche, très près de la fovéa, kystes",
    "cp1250": "Obrzęk plamki żółtej, płyn podsiatkówkowy, grubość zwiększona",
    "cp1251": "Отёк макулы и друзы, субретинальной жидкости нет.",
    "koi8_r": "Отёк макулы и друзы, субретинальной жидкости нет.",
    "cp1256": "سائل تحت الشبكية، وذمة بقعية، لا توجد دروزن في البقعة.",
    "cp1253": "Οίδημα της ωχράς, χωρίς υπαμφιβληστροειδικό υγρό.",
    "gb18030": "黄斑区未见积液，视网膜厚度正常。",
    "big5": "黃斑區未見積液，視網膜厚度正常。",
    "cp932": "網膜下液はありません。黄斑の厚さは正常です。",
    "cp949": "황반부에 망막하액이 없습니다.",
    "utf-16": GERMAN,
    "utf-8-sig": GERMAN,
    "utf-16-le": GERMAN,
}


def text_of(*reports, separator=","):
    lines = [separator.join(COLUMNS)]
    lines += [separator.join((f"{k}.png", f'"{r}"', f"p{k}")) for k, r in enumerate(reports)]
    return "\r\n".join([*lines, ""])


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("encoding", TEXTS)
def test_an_encoding_is_found_where_one_reading_makes_sense(tmp_path, encoding):
    path = write(tmp_path / "t.csv", text_of(TEXTS[encoding], "no fluid").encode(encoding))
    table = read_table(path, COLUMNS)
    assert table.cells["report"] == [TEXTS[encoding], "no fluid"]
    assert any("encoding" in note for note in table.notes) == (encoding != "utf-8-sig")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_chinese_in_two_bytes_a_sign_without_a_mark(tmp_path, encoding):
    report = "一黄斑区未见积液，视网膜厚度正常。" * 12
    path = write(tmp_path / "t.csv", text_of(*[report] * 30).encode(encoding))
    assert read_table(path, COLUMNS).cells["report"][29] == report


def test_few_signs_are_enough_where_they_are_a_unit_or_one_case(tmp_path):
    for encoding in ("cp1252", "cp850"):  # as letters, they would be ľm, Ám and æm
        path = write(tmp_path / "t.csv", text_of("CST 312 µm", "250µm").encode(encoding))
        assert read_table(path, COLUMNS).cells["report"] == ["CST 312 µm", "250µm"]
    russian = [f"ОКТ макулы: {word}, толщина сетчатки" for word in ("друзы", "отёк", "атрофия")]
    path = write(tmp_path / "t.csv", text_of(*russian).encode("cp1251"))
    assert find_encoding(path) == "cp1251"


def test_two_readings_are_shown_and_a_name_decides(tmp_path):
    path = write(tmp_path / "t.csv", text_of("trčs épais").encode("cp1250"))  # or "très épais"
    with pytest.raises(InputError, match="several encodings") as caught:
        read_table(path, COLUMNS)
    message = str(caught.value)
    assert "cp1252: très" in message and "cp1250: trčs" in message
    assert "--table_encoding" in message
    assert read_table(path, COLUMNS, encoding="cp1252").cells["report"] == ["très épais"]
    with pytest.raises(InputError, match="is not utf-8"):
        read_table(path, COLUMNS, encoding="utf-8")
    with pytest.raises(InputError, match="names no encoding"):
        read_table(path, COLUMNS, encoding="windows")


def test_lines_in_another_encoding_are_named(tmp_path):
    content = text_of(*["Ödem, größer"] * 4).encode() + "4.png,Ödem,p4\r\n".encode("cp1252")
    with pytest.raises(InputError, match="UTF-8 but for 1 of its lines") as caught:
        find_encoding(write(tmp_path / "t.csv", content))
    assert "lines 6" in str(caught.value)
    lines = [text_of(GERMAN).encode("cp1252" if k % 2 else "utf-8") for k in range(4)]
    with pytest.raises(InputError, match="UTF-8 but for 2 of its lines"):
        find_encoding(write(tmp_path / "t.csv", b"".join(lines)))


def test_text_that_was_read_wrongly_is_noticed():
    assert misread("FlÃ¼ssigkeit") and misread("Dicke \x96 250")
    assert misread("Fl?ssigkeit") and misread("=C3=96dem") and not misread("normal? CST=312, 5%")
    assert not misread(GERMAN) and not misread("œdème, naïve; 黄斑")
    assert (
        misread_as_western("黄斑区未见积液。".encode("gb18030").decode("latin1")).encoding
        == "gb18030"
    )
    assert misread_as_western(GERMAN) is None


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_separator_is_found_by_the_header(tmp_path, separator):
    content = text_of("Dicke 250,5 µm", "no", separator=separator)
    for start in ("", f"sep={separator}\r\n"):
        table = read_table(write(tmp_path / "t.csv", start + content), COLUMNS)
        assert table.cells["report"] == ["Dicke 250,5 µm", "no"]
        assert table.rows == [2, 3]
        assert "parted by" in table.notes[0]


@pytest.mark.parametrize(
    ("header", "note"),
    [
        ("IMAGE, Report ,Patient ID", "'IMAGE' as image"),
        ("image:,report *,patient-id", "'image:' as image"),
        ("image,report\u200b,\ufeffpatient_id", None),
        ("\ufeff\ufeffimage,report,patient_id", None),
        ("Export 2024,,\nimage,report,patient_id", "the header is in row 2"),
    ],
)
def test_a_header_is_found_whatever_it_looks_like(tmp_path, header, note):
    table = read_table(write(tmp_path / "t.csv", f"{header}\na.png,cyst,p\n"), COLUMNS)
    assert table.cells == {"image": ["a.png"], "report": ["cyst"], "patient_id": ["p"]}
    assert (note is None and not table.notes) or note in table.notes[0]


def test_rows_whose_cells_cannot_be_told_apart(tmp_path):
    lines = ["image,report,patient_id,remark", "0.png,cyst,p0,", "1.png,fluid, large,p1,"]
    lines += ['2.png,"a lone quote,p2,', '3.png,and its end",p3,', "4.png,cyst,p4,"]
    broken = read_table(write(tmp_path / "t.csv", "\n".join(lines)), COLUMNS).broken
    assert list(broken) == [3, 4]
    assert "5 fields where the header has 4" in broken[3]
    assert "lines which look like rows" in broken[4]
    shifted = "image,report,patient_id,\n0.png,cyst,p0,\n1.png,fluid, large,p1\n"
    assert "no column's name" in read_table(write(tmp_path / "t.csv", shifted), COLUMNS).broken[3]
    sound = 'image,report,patient_id\n0.png,"OCT:\nno fluid, CST 250\nnormal, flat",p0\n'
    assert read_table(write(tmp_path / "t.csv", sound), COLUMNS).broken == {}


def test_quotes_escaped_by_backslash_and_stray_carriage_returns(tmp_path):
    content = 'image,report,patient_id\r\n"0.png","a \\"lone\\" cyst, flat","p0"\r\n'
    table = read_table(write(tmp_path / "t.csv", content), COLUMNS)
    assert table.cells["report"] == ['a "lone" cyst, flat']
    content = "image,report,patient_id\r\n0.png,two\rlines,p0\r\n1.png,cyst,p1\r\n"
    table = read_table(write(tmp_path / "t.csv", content), COLUMNS)
    assert (table.rows, table.cells["report"]) == ([2, 3], ["two lines", "cyst"])


@pytest.mark.parametrize(
    ("rows", "report", "note"),
    [
        ('0.png, "cyst, flat", p0', "cyst, flat", None),
        ('"0.png,""cyst, flat"",p0"', "cyst, flat", None),
        ("0.png,cyst\\, flat,p0", "cyst, flat", "with a \\ before them"),
        ('0.png,"5 mm" cyst,"p0"', '"5 mm" cyst', "as they stand"),
        ("\x1a\n , ,\n0.png,cyst,p0", "cyst", None),
    ],
)
def test_rows_of_other_programs(tmp_path, rows, report, note):
    table = read_table(write(tmp_path / "t.csv", f"image,report,patient_id\n{rows}\n"), COLUMNS)
    assert table.cells == {"image": ["0.png"], "report": [report], "patient_id": ["p0"]}
    assert (note is None and not table.notes) or note in table.notes[0]


def test_a_lone_quote_beside_paths_of_windows_is_told(tmp_path):
    rows = 'scans\\0.png,"cyst,p0\nscans\\1.png,flat",p1\n'
    table = read_table(write(tmp_path / "t.csv", f"image,report,patient_id\n{rows}"), COLUMNS)
    assert table.cells["image"] == ["scans\\0.png"] and "lone double quote" in table.broken[2]


@pytest.mark.parametrize("prefix", ["", "x:"])
def test_a_sheet_is_looked_at_between_its_rows(monkeypatch, prefix):
    monkeypatch.setattr(workbook, "BLOCK", 40)
    row = f"<{prefix}row r='1'><{prefix}c/></{prefix}row>"
    sheet = (row * 9 + "<mergeCells/>").encode()
    parts = list(workbook._rows_in(io.BytesIO(sheet)))
    assert b"".join(parts) == sheet and len(parts) > 5
    assert all(part.endswith(b"row>") for part in parts[:-1] if part)


def test_lines_of_a_mac_hold_line_breaks_of_cells(tmp_path):
    content = 'image,report,patient_id\r0.png,"OCT:\ncyst",p0\r1.png,no\nfluid,p1\r'
    table = read_table(write(tmp_path / "t.csv", content), COLUMNS)
    assert table.cells["report"] == ["OCT: cyst", "no fluid"]
    assert table.rows == [2, 3]


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ("Liste\nBild;Befund;Fall\n0.png;Zyste;p0\n", "columns Bild, Befund, Fall parted by semi"),
        ("Anna M.;1951\nBild;Befund;Fall\n", "not shown"),
        ("image:report:patient_id\n0.png:cyst:p0\n", "in one cell, which no separator parts"),
        ("0.png,cyst,p0\n", "a pair and no header"),
    ],
)
def test_names_of_columns_are_shown_where_they_are_no_patients(tmp_path, content, got):
    with pytest.raises(InputError, match=got) as caught:
        read_table(write(tmp_path / "t.csv", content), COLUMNS)
    assert "Anna" not in str(caught.value)
    assert ("--image_column 'Bild'" in str(caught.value)) == ("Zyste" in content)


def test_a_long_report_is_read(tmp_path):
    long = "word " * 40_000
    assert read_table(write(tmp_path / "t.csv", text_of(long)), COLUMNS).cells["report"] == [long]


def write_workbook(path, *sheets):
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.active)
    for title, rows in sheets:
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.active = 0
    for sheet in book:
        for cell in sheet["C"]:
            cell.number_format = "0000"
    book.save(path)
    return path


def test_excel_shows_numbers_as_its_format_does(tmp_path):
    rows = [["OCT list"], COLUMNS, ["0.png", "cyst", 7], ["1.png", None, 12.0]]
    path = write_workbook(tmp_path / "t.xlsx", ("remarks", [["x"]]), ("OCT", rows))
    table = read_table(path, COLUMNS)
    assert table.rows == [3, 4]
    assert table.cells == {
        "image": ["0.png", "1.png"], "report": ["cyst", ""], "patient_id": ["0007", "0012"],
    }  # fmt: skip
    assert table.notes == ["Excel, sheet 'OCT'", "the header is in row 2"]
    twice = write_workbook(tmp_path / "u.xlsx", ("a", rows), ("b", rows))
    with pytest.raises(InputError, match=r"several sheets.*\n.*a, b"):
        read_table(twice, COLUMNS)


def test_a_workbook_is_read_as_it_is_shown(tmp_path):
    from openpyxl import load_workbook

    rows = [COLUMNS, ["0.png", "cyst", 7], ["1.png", "fluid"], ["2.png", "fluid", 8]]
    path = write_workbook(tmp_path / "t.xlsx", ("OCT", rows), ("old", rows))
    book = load_workbook(path)
    book["old"].sheet_state = "hidden"
    book["OCT"].merge_cells("C2:C3")
    book["OCT"].row_dimensions[4].hidden = True
    book.save(path)
    table = read_table(path, COLUMNS)
    assert table.cells["patient_id"] == ["0007", "0007", "0008"]
    assert "sheet 'OCT'" in table.notes[0]
    assert any("merged" in note for note in table.notes)
    assert any("1 hidden rows" in note for note in table.notes)
    book["OCT"]["B3"] = '="no "&"fluid"'  # no value is saved with it
    book.save(path)
    with pytest.raises(InputError, match=r"formulas without values[\s\S]*rows 3"):
        read_table(path, COLUMNS)


def test_parquet_keeps_whole_numbers_whole(tmp_path):
    pd, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"image": ["0.png", "1.png"], "report": ["cyst", None]})
    frame["patient_id"] = [1.0, 2.0]
    frame.to_parquet(tmp_path / "t.parquet")
    cells = read_table(tmp_path / "t.parquet", COLUMNS).cells
    assert (cells["report"], cells["patient_id"]) == (["cyst", ""], ["1", "2"])


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xd0\xcf\x11\xe0" + bytes(64), "old kind"),
        (b"\x1f\x8b" + bytes(64), "gzip"),
        (b"<html><table>", "a web page"),
        (b"PK\x03\x04" + bytes(64), "cannot be read"),
        (b"PAR1" + bytes(64), "cannot be read"),
    ],
)
def test_other_files_are_named(tmp_path, content, kind):
    with pytest.raises(InputError, match=kind):
        read_table(write(tmp_path / "t.csv", content), COLUMNS)
