"""The page of a model that was refined on exams: it shows exams, and what the API says of them."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from retfiner import load_model
from retfiner.browse.app import BY_FILE, BY_WORDS
from retfiner.browse.server import APP
from tests.helpers.exam_run import images_of_exam, refine_exams, report_of_exam
from tests.retfiner.browse.test_app import (
    as_npy,
    choose,
    drop,
    everything_sent,
    ordered,
    reports_shown,
    shown,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return refine_exams(tmp_path_factory.mktemp("exams"))


@pytest.fixture(scope="module")
def model(run):
    return load_model(run[0].folder, "cpu")


@pytest.fixture
def page(run, monkeypatch):
    result, table, _ = run
    words = [str(result.folder), "--data", str(table), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [str(APP), *words])
    return AppTest.from_file(APP, default_timeout=60).run()


def test_an_exam_has_the_reports_and_the_words_that_the_api_finds(run, model, page):
    _, table, _ = run
    page.selectbox(key="place").set_value(3).run()
    assert not page.exception and "16 exams" in shown(page)
    exam = model.exam(images_of_exam(table, 3), "OD")
    every = list(dict.fromkeys(map(report_of_exam, range(16))))
    near = ordered(model.similarity(exam, every)[0])[:16]
    best = near[ordered(model.match(exam, [every[i] for i in near]))][:8]
    assert reports_shown(page)[0] == [every[i] for i in best]
    assert f">{model.generate(exam)[0] or '(nothing)'}<" in shown(page)
    [slider] = page.select_slider
    assert slider.options == ["OD, 1 of 4", "OD, 3 of 4", "OD, 4 of 4"]
    assert "OD, 3 of 4, " in shown(page), "the middle one first"
    [maps] = page.get("iframe")
    assert 'type="range" min="0" max="2"' in maps.proto.srcdoc
    sent = re.sub(r"base64,[\w+/=]+", "", everything_sent(page))
    assert not re.search(r"3_0\.png|\bp3\b", sent) and str(table.parent) not in sent


def test_words_find_exams(run, model, page):
    _, table, _ = run
    page = choose(page, BY_WORDS)
    page.text_input(key="words").set_value("Drusen temporal.").run()
    page.toggle(key="by_match").set_value(False).run()
    exams = [model.exam(images_of_exam(table, number), "OD") for number in range(16)]
    best = ordered(model.similarity(exams, "Drusen temporal.")[:, 0])[:9]
    first = np.cumsum([2, *(1 + number % 4 for number in range(15))])
    assert [button.label for button in page.button] == [f"Look at row {first[i]}" for i in best]
    page.toggle(key="by_match").set_value(True).run()
    assert not page.exception and len(page.button) == 9


def test_a_volume_that_is_dropped_is_an_exam_or_a_bscan(model, page):
    volume = np.random.default_rng(0).integers(0, 256, (5, 40, 48), dtype=np.uint8)
    page = drop(choose(page, BY_FILE), "volume.npy", as_npy(volume))
    every = list(dict.fromkeys(map(report_of_exam, range(16))))
    for subject in (model.exam(volume), volume[2]):
        near = ordered(model.similarity(subject, every)[0])[:16]
        best = near[ordered(model.match(subject, [every[i] for i in near]))][:8]
        assert reports_shown(page)[0] == [every[i] for i in best] and not page.exception
        page.toggle[0].set_value(False).run()
