"""The page shows what the API gives, in its order; it names no file and no patient."""

from __future__ import annotations

import html
import io
import re

import numpy as np
import pytest

from retfiner.browse.app import BY_FILE, BY_ROW, BY_WORDS
from tests.helpers.refinement import report_of

ROWS = range(2, 14)
WORDS = "Subretinal fluid in the fovea."


def ordered(values):
    return np.argsort(-values, kind="stable")


def shown(page):
    return "".join(part.value for part in page.html)


def reports_shown(page):
    """The reports of the table, and whether each is marked as the B-scan's own."""
    cells = re.findall(r"<tr><td( class=\"rf-own\")?>(.*?)(?: <span.*?)?</td>", shown(page))
    return [html.unescape(report) for _, report in cells], [bool(own) for own, _ in cells]


def everything_sent(page):
    """All that the browser gets, pictures excepted."""
    parts, pending = [], [page.main, page.sidebar]
    while pending:
        node = pending.pop()
        parts.append(str(node.proto))
        pending += getattr(node, "children", {}).values()
    return "\n".join(parts)


def choose(page, begin):
    return page.radio(key="begin").set_value(begin).run()


def drop(page, name, content):
    return page.file_uploader(key="file").set_value((name, content, "")).run()


def as_npy(values):
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


@pytest.mark.parametrize("by_match", [False, True])
def test_words_find_the_bscans_that_the_api_finds(open_page, model, paths, by_match):
    page = choose(open_page(), BY_WORDS)
    page.text_input(key="words").set_value(WORDS).run()
    page.toggle(key="by_match").set_value(by_match).run()
    scores = model.match(paths, WORDS) if by_match else model.similarity(paths, WORDS)[:, 0]
    best = ordered(scores)[:9]
    assert [button.label for button in page.button] == [f"Look at row {ROWS[i]}" for i in best]
    assert report_of(best[0]) in shown(page)
    assert not page.exception


@pytest.mark.parametrize("by_match", [False, True])
def test_a_bscan_has_the_reports_that_the_api_finds(open_page, model, paths, by_match):
    page = open_page()
    page.selectbox(key="place").set_value(3).run()
    page.toggle(key="by_match").set_value(by_match).run()
    every = list(dict.fromkeys(report_of(index) for index in range(12)))
    similar = model.similarity(paths[3], every)[0]
    scores = model.match(paths[3], every) if by_match else similar
    reports, own = reports_shown(page)
    assert reports == [every[i] for i in ordered(scores)[:8]]
    assert own == [report == report_of(3) for report in reports]
    rank = 1 + list(ordered(similar)).index(every.index(report_of(3)))
    assert f"number {rank} of {len(every)} by cosine" in shown(page)
    assert f"{similar[ordered(scores)[0]]:.3f}".replace("-", "−") in shown(page)
    assert f">{model.generate(paths[3])[0] or '(nothing)'}<" in shown(page)
    assert not page.exception


def test_the_words_of_a_report_have_maps(open_page):
    page = open_page()
    page.selectbox(key="place").set_value(1).run()
    [maps] = page.get("iframe")
    assert maps.proto.srcdoc.count("data-word=") == len(report_of(1).split()) + 1
    assert "not meant for diagnosis" in maps.proto.srcdoc
    page.text_input(key="own-words").set_value("Cysts.").run()
    assert page.get("iframe")[0].proto.srcdoc.count("data-word=") == 2
    page.text_input(key="own-words").set_value("...").run()
    assert "no word to show" in page.error[0].value


def test_what_was_found_by_words_can_be_looked_at_and_the_words_stay(open_page):
    page = choose(open_page(), BY_WORDS)
    page.text_input(key="words").set_value(WORDS).run()
    label = page.button[2].label
    page.button[2].click().run()
    assert page.radio(key="begin").value == BY_ROW
    assert ROWS[page.selectbox(key="place").value] == int(label.split()[-1])
    assert choose(page, BY_WORDS).text_input(key="words").value == WORDS


def test_a_file_is_read_as_the_tables_image_is(open_page, paths):
    page = open_page()
    page.selectbox(key="place").set_value(4).run()
    from_table = reports_shown(page)[0]
    page = drop(choose(page, BY_FILE), "UPPER.PNG", paths[4].read_bytes())
    assert not page.exception and not page.error
    reports, own = reports_shown(page)
    assert reports == from_table and not any(own)


def test_a_bscan_of_a_volume_is_chosen(open_page, model):
    volume = np.random.default_rng(0).integers(0, 256, (5, 40, 48), dtype=np.uint8)
    page = drop(choose(open_page(), BY_FILE), "volume.npy", as_npy(volume))
    every = list(dict.fromkeys(report_of(index) for index in range(12)))
    [slider] = page.slider
    assert (slider.min, slider.max, slider.value) == (0, 4, 2)
    page = slider.set_value(4).run()
    assert "B-scan 4" in shown(page)
    expected = ordered(model.match(volume[4], every))[:8]
    assert reports_shown(page)[0] == [every[i] for i in expected]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("broken.png", b"\x89PNG\r\n\x1a\n and no more", "broken.png cannot be used"),
        ("notes.txt", b"words", "is no image of a known kind"),
        ("*mark*[up](x).png", b"", "*mark*[up](x).png"),
        ("numbers.npy", as_npy(np.zeros(4)), "(4,)"),
    ],
)
def test_an_unreadable_file_is_refused_in_plain_words(open_page, name, content, words):
    page = drop(choose(open_page(), BY_FILE), name, content)
    [error] = page.error
    assert words in error.value.replace("\\", "")
    assert "retfiner-" not in error.value and "/" not in error.value
    assert not page.exception


def test_no_path_and_no_patient_is_sent(open_page, material, paths):
    page = open_page()
    sent = everything_sent(page)
    page = choose(page, BY_WORDS)
    sent += everything_sent(page.text_input(key="words").set_value(WORDS).run())
    assert report_of(0) in sent and "not a diagnosis" in sent
    for secret in ("patient-0", "scan_0", str(material.csv.parent), "pairs.csv"):
        assert secret not in sent


def test_a_model_shows_what_it_can_and_says_what_it_lacks(open_page):
    page = open_page("gm")
    assert "cannot find what is alike" in page.info[0].value
    assert "Written by the model" in shown(page) and 'rf-table"' not in shown(page)
    assert not choose(page, BY_WORDS).text_input and not page.exception

    page = open_page("itc")
    assert ["cosine alone" in info.value for info in page.info] == [True, False]
    assert "writes no reports" in page.info[1].value
    assert len(reports_shown(page)[0]) == 8
    assert not page.toggle and not page.get("iframe") and not page.exception
