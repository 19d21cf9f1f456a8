"""What a user gets: a map for each word, a picture, and a page that stands alone."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from retfiner import load_model
from retfiner.common.errors import InputError
from retfiner.explanation.config import ExplainConfig
from retfiner.explanation.figure import coloured, find_fonts, relative, strengths, write_figure
from retfiner.explanation.maps import token_maps
from retfiner.explanation.page import build_page
from retfiner.refine import refine
from retfiner.text.tokenizer import tokenize
from retfiner.vision import evaluation_transform, read_image
from tests.helpers.refinement import make_material, report_of, settings
from tests.helpers.scripts import run_script

REPORT = "B-scan with drusen in the fovea, scan 3 <b>."


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"), pairs=12, patients=6)


@pytest.fixture(scope="module")
def run(material, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return refine(settings(material, folder, max_epochs=1, max_text_tokens=20)).folder


@pytest.fixture(scope="module")
def scan(material):
    return material.csv.parent / "images" / "scan_000.png"


@pytest.fixture(scope="module")
def model(run):
    return load_model(run, device="cpu")


@pytest.fixture(scope="module")
def explanation(model, scan):
    return model.explain(scan, REPORT)


def test_letters_that_no_font_has_are_told_without_a_warning_each(tmp_path, explanation):
    assert find_fonts("Größe 250 µm") == (["DejaVu Sans"], False)
    ancient = dataclasses.replace(explanation, report="drusen \U00013000\U00013001")
    with warnings.catch_warnings(action="error"):
        assert write_figure(tmp_path / "a.png", explanation)
        assert not write_figure(tmp_path / "b.png", ancient)


def test_a_words_map_is_the_mean_of_its_pieces(model, scan, explanation):
    loaded = model.loaded
    pixels = evaluation_transform(loaded.model.backbone)(read_image(scan))[None]
    maps = token_maps(loaded.model, pixels, *tokenize(loaded.tokenizer, [REPORT], 20))
    assert [word.text for word in explanation.words][:3] == ["B-scan", "with", "drusen"]
    for number, word in enumerate(explanation.words):
        expected = maps.weighted[0, 0][torch.tensor(word.pieces)].mean(0)
        np.testing.assert_allclose(explanation.weighted[number], expected.numpy(), rtol=1e-6)
    assert explanation.match == pytest.approx(model.match(scan, REPORT)[0], abs=1e-5)
    assert explanation.rollout.shape == (4, 4)
    assert 0 < explanation.rollout.sum() <= 1


def test_the_longest_report_is_cut_as_in_training(model, scan):
    found = model.explain(scan, " ".join([REPORT] * 4))
    assert found.words and found.unread
    assert len(found.words) + len(found.unread) == 4 * 9
    assert found.unread[0].start > found.words[-1].start


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_stands_alone_and_each_word_is_a_button(explanation):
    text = build_page(explanation)
    page = Page(text)
    without_pictures = re.sub(r"data:image/png;base64,[\w+/=]+", "", text)
    assert not re.findall(r"https?:|//|url\(|@import|src=\"[^\"]", without_pictures)
    assert not page.of("link") and not page.of("b"), "a report is no markup"
    assert all("src" not in script for script in page.of("script"))
    assert all(
        image.get("src", "data:").startswith("data:image/png") for image in page.of("img")[:1]
    )
    buttons = [button["data-word"] for button in page.of("button")]
    assert buttons == [*(str(n) for n in range(len(explanation.words))), "image"]
    maps = json.loads(re.search(r'id="maps">(.*?)</script>', text, re.S).group(1))
    assert len(maps["weighted"]) == len(maps["attention"]) == len(explanation.words)
    picture = base64.b64decode(maps["attention"][0]["maps"][0].partition(",")[2])
    assert Image.open(io.BytesIO(picture)).size == (4, 4)
    scan = base64.b64decode(page.of("img")[0]["src"].partition(",")[2])
    expected = (explanation.image * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(scan))), expected)


def test_colours_rise_with_a_map():
    maps = np.array([[[0, 1], [2, 4]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]], np.float32)
    assert relative(maps)[0].tolist() == [[0, 0.25], [0.5, 1]]
    assert not relative(maps)[1].any(), "an empty map stays empty"
    assert strengths(maps).tolist() == pytest.approx([1, 0, 4 / 7])
    opacity = coloured(relative(maps)[0])[..., 3]
    assert opacity[0, 0] == 0 and (np.diff(opacity.ravel().astype(int)) > 0).all()


def test_the_picture_has_a_panel_a_word(explanation, tmp_path):
    write_figure(tmp_path / "a.png", explanation)
    write_figure(tmp_path / "b.png", explanation, weighted=False)
    pictures = [
        np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in ("a.png", "b.png")
    ]
    assert pictures[0].shape == pictures[1].shape and (pictures[0] != pictures[1]).any()
    colourful = np.ptp(pictures[0].astype(int), axis=-1) > 60
    assert colourful.mean() > 0.005, "overlays are in colour"


@pytest.mark.parametrize(
    "named", [{}, {"image": "a.png"}, {"data": "a.csv"}, {"image": "a", "report": "b", "row": 2}]
)
def test_one_pair_must_be_named(named):
    with pytest.raises(InputError, match="must be named"):
        ExplainConfig(model="run", **named)


def test_script_with_an_image_and_a_report(run, scan, tmp_path):
    done = run_script(
        "explain.py", "--model", run, "--image", scan, "--report", REPORT,
        "--output", tmp_path / "out", "--html", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"scan_000.png", "scan_000.html"}


def test_script_with_a_row_of_a_table(run, material, tmp_path):
    from retfiner.explanation.run import run as explain_pair

    common = {"model": run, "data": material.csv, "output": tmp_path / "out", "device": "cpu"}
    [picture] = explain_pair(ExplainConfig(row=4, **common))
    assert picture.name == "row_4_scan_002.png", "the header is row 1"
    with pytest.raises(InputError, match="from 2 to 13"):
        explain_pair(ExplainConfig(row=14, **common))


def test_the_last_layer_is_refused(model, scan):
    with pytest.raises(InputError, match="layer 1 of 2"):
        model.explain(scan, report_of(0), layer=1)
