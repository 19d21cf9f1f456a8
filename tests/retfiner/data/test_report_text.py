"""From a cell to plain text, and what reports have in common."""

import base64

import pytest

from retfiner.common.placeholders import is_placeholder, says_nothing
from retfiner.data.report_text import (
    as_text,
    find_common_beginnings,
    read_report,
    without_beginning,
)

RTF = (
    r"{\rtf1\ansi\ansicpg1250{\fonttbl{\f0 Arial;}}{\*\generator X;}\pard\f0 "
    r"Obrz\'eak, \u228?rztlich {\b Befund:}\par Drusen\}}"
)


HL7 = (
    "MSH|^~\\&|OCT|A|B|C|2024||ORU^R01|1|P|2.3\rPID|1||77^^^MRN||MUSTER^ANNA\r"
    "OBX|1|FT|F^Findings||Fluid.\\.br\\No \\T\\ few drusen.||||||F\r"
    "OBX|2|NM|CST^Central thickness||312|um\rOBX|3|CE|D||H35^AMD^ICD\rNTE|1||Stable.\r"
    f"OBX|4|ED|P||^text^plain^Base64^{base64.b64encode(b'As in a letter to them.').decode()}"
)
CDA = (
    "<?xml version='1.0'?><ClinicalDocument><title>OCT</title><recordTarget>Anna Muster"
    "</recordTarget><component><structuredBody><section><title>Findings</title><text>no fluid"
    "</text><entry><value>C1</value></entry></section></structuredBody></component>"
    "</ClinicalDocument>"
)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (
            HL7,
            "Fluid. No & few drusen. Central thickness: 312 um AMD Stable. As in a letter to them.",
        ),
        (CDA, "Findings no fluid"),
        (RTF.replace("\\", "\\\\"), "Obrzęk, ärztlich Befund: Drusen}"),
        (base64.b64encode(RTF.encode()).decode(), "Obrzęk, ärztlich Befund: Drusen}"),
        ('\ufeff"' + RTF + RTF + '"', "Obrzęk, ärztlich Befund: Drusen} " * 2),
        ("OCT:\\r\\nno fluid\\nflat, \\u00d6dem", "OCT: no fluid flat, Ödem"),
        ("see C:\\new\\table.pdf", "see C:\\new\\table.pdf"),
        ("no fluid\n Page 2 of 3 \n- Seite 4 -\non page 2", "no fluid on page 2"),
        ("O\u0308dem, ＣＳＴ ３１２", "Ödem, CST 312"),
        (RTF, "Obrzęk, ärztlich Befund: Drusen}"),
        (RTF[:-12], "Obrzęk, ärztlich Befund:"),
        ("<html><style>p{}</style><p>Dru<b>sen</b><br>250&nbsp;&micro;m</p>", "Drusen 250 µm"),
        ("<?xml version='1.0'?><r><title>OCT</title><t>no fluid</t></r>", "OCT no fluid"),
        ("&lt;p&gt;CST &amp;lt; 250&lt;/p&gt;", "CST < 250"),
        ("CST <250 and >300, R&D", "CST <250 and >300, R&D"),
        ("OCT:_x000D_\nno ﬂuid", "OCT: no fluid"),
        ("intra-\nretinal cyst, B-\nscan", "intraretinal cyst, B- scan"),
        ("______ yo with ___: dru\u200bsen\x00", "_ yo with _: drusen"),
        ("['a cyst', 'macula']", "['a cyst', 'macula']"),
    ],
)
def test_a_report_is_its_text(cell, text):
    report = read_report(cell)
    assert (report.text, report.problem) == (text.strip(), None)
    assert read_report(report.text).text == report.text


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("%PDF-1.4 stream", "a PDF file"),
        ("(cid:3)(cid:17)", "glyph numbers"),
        ("{rtf1ansi Drusen}", "lost its backslashes"),
        (r"{\rtf1\ansi\pard }", "RTF without text"),
        ("<p> </p>", "without text"),
        ("MSH|^~\\&|OCT\rPID|1||77||MUSTER^ANNA", "HL7 without text"),
        ("QUJD" * 60, "an encoded file"),
    ],
)
def test_what_is_no_text_is_named(cell, problem):
    assert problem in read_report(cell).problem


def test_a_letterhead_is_found_also_with_dates_and_of_two_clinics():
    letters = (
        "Eye clinic, OCT of the macula, 3 May 2020. Findings:",
        "Second clinic: report of 1.2.2021 follows here.",
    )
    reports = [
        f"{letters[k % 2].replace('3', str(k % 9))} finding number {'abcdefghij'[k % 10]}{k}."
        for k in range(20)
    ]
    beginnings = find_common_beginnings(reports)
    assert len(beginnings) == 2
    assert without_beginning(reports[3], beginnings) == "finding number d3."
    assert without_beginning("no fluid", beginnings) == "no fluid"


def test_a_letterhead_is_found_behind_months_and_in_chinese():
    months = ("3. Mai 2020", "12. März 2021", "1. Dez. 1999")
    reports = [f"Klinik, Makula. Vom {months[k % 3]}: Befund, {'abcdefghi'[k]}." for k in range(9)]
    beginnings = find_common_beginnings([f"{report} Ende" for report in reports])
    assert without_beginning(reports[4], beginnings) == "Befund, e."
    head = "某医院眼科光学相干断层扫描检查报告单，双眼。检查所见："
    reports = [f"{head}第{'一二三四五六七八九'[k]}例水肿" for k in range(9)]
    beginnings = find_common_beginnings(reports)
    assert as_text(beginnings[0]) == head
    assert without_beginning(reports[0], beginnings) == "第一例水肿"


def test_what_differs_in_numbers_alone_is_a_finding():
    form = "Central thickness {} um. Macular volume {} mm3."
    assert find_common_beginnings([form.format(k, k + 1) for k in range(20)]) == []
    head = "Eye clinic of the hospital, both eyes. Findings:"
    reports = [f"{head} {('drusen', 'cyst')[k % 2]}, {k} um." for k in range(20)]
    assert find_common_beginnings(reports) == [head.casefold().split()]


def test_the_words_of_a_finding_are_no_letterhead():
    reports = [f"The B-scan of the left eye shows finding {'abcdefghij'[k]}" for k in range(10)]
    assert find_common_beginnings(reports) == []


@pytest.mark.parametrize(
    "report",
    ["unchanged", "Same as OD", "wie rechts.", "see left eye", "voir OD", "(stabil)", "OCT OS",
     "No change since last visit", "stabil im Vergleich zum Vorbefund", "see report 123"],
)  # fmt: skip
def test_reports_that_say_nothing_by_themselves(report):
    assert says_nothing(report)
    assert not is_placeholder(report)


@pytest.mark.parametrize(
    "report",
    ["no fluid", "kein Ödem", "o.B.", "Normal.", "fluid as right", "see drusen", "ERM", "#1 drusen",
     "特になし", "drusen, no data on thickness", "CNV?"],
)  # fmt: skip
def test_short_reports_are_reports(report):
    assert not says_nothing(report)
    assert not is_placeholder(report)


@pytest.mark.parametrize(
    "cell",
    ["see attached PDF", "See previous exam.", "siehe Arztbrief", "Befund folgt", "k. A.", "N / A",
     "Ｎ／Ａ", "\\N", "DRAFT", "pas de compte rendu", "ver informe adjunto", "(anonymised)",
     "报告未出"],
)  # fmt: skip
def test_placeholders_are_known_by_their_words(cell):
    assert is_placeholder(cell)


@pytest.mark.parametrize("name", ["Le", "An", "No", "Visit 2", "report 12", "A"])
def test_names_are_no_placeholders(name):
    assert not is_placeholder(name)
