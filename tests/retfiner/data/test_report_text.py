"""From a cell to plain text, and what reports have in common."""

import pytest

from retfiner.data.report_text import (
    find_common_beginnings,
    is_placeholder,
    read_report,
    says_nothing,
    without_beginning,
)

RTF = (
    r"{\rtf1\ansi\ansicpg1250{\fonttbl{\f0 Arial;}}{\*\generator X;}\pard\f0 "
    r"Obrz\'eak, \u228?rztlich {\b Befund:}\par Drusen\}}"
)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
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
    assert (report.text, report.problem) == (text, None)
    assert read_report(text).text == text


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("%PDF-1.4 stream", "a PDF file"),
        ("(cid:3)(cid:17)", "glyph numbers"),
        ("{rtf1ansi Drusen}", "lost its backslashes"),
        (r"{\rtf1\ansi\pard }", "RTF without text"),
        ("<p> </p>", "without text"),
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


def test_the_words_of_a_finding_are_no_letterhead():
    reports = [f"The B-scan of the left eye shows finding {'abcdefghij'[k]}" for k in range(10)]
    assert find_common_beginnings(reports) == []


@pytest.mark.parametrize(
    "report",
    ["unchanged", "Same as OD", "wie rechts.", "see left eye", "voir OD", "(stabil)"],
)
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
