"""Pages escape what goes in, miss nothing silently, and carry their pictures."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from jinja2 import UndefinedError
from PIL import Image

from retfiner.evaluation.pages import as_8bit, data_uri, get_template

TEXT = (
    '{% extends "page.html" %}{% block title %}{{ name }}{% endblock %}'
    "{% block content %}{{ name }}{% endblock %}"
)


@pytest.fixture
def template(tmp_path):
    path = tmp_path / "own.html"
    path.write_text(TEXT, encoding="utf-8")
    return get_template(path)


def test_what_goes_in_is_escaped_in_the_shared_page(template):
    page = template.render(name="<b>&")
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")
    assert "<b>" not in page and page.count("&lt;b&gt;&amp;") == 3


def test_a_value_that_is_missing_is_an_error(template):
    with pytest.raises(UndefinedError, match="name"):
        template.render()


def test_pictures_lie_within_the_page():
    pixels = as_8bit(np.linspace(0, 1, 12).reshape(3, 4))
    kind, _, data = data_uri(pixels).partition(",")
    assert kind == "data:image/png;base64"
    found = Image.open(io.BytesIO(base64.b64decode(data)))
    np.testing.assert_array_equal(np.asarray(found), pixels)
    kind, _, data = data_uri(pixels, width=8).partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (8, 6)
