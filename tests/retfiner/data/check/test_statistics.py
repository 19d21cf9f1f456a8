"""Numbers of a collection against counting by hand, and the bars they are drawn as."""

from base64 import b64decode
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from retfiner.data.after_cut import cut_reports
from retfiner.data.check.images import ImageFacts, Intensity
from retfiner.data.check.page import VERMILION, draw_bars, draw_histogram, integer_edges
from retfiner.data.check.statistics import describe_images, describe_patients, describe_reports
from retfiner.data.pair_table import PairRow
from retfiner.text.tokenizer import train_tokenizer
from retfiner.vision.images import ImageAddress
from tests.helpers.refinement import report_of

REPORTS = ["one two three", "one two three", "one", "a b c d e f g h", "one two"]


def test_words_are_counted_where_there_is_no_tokenizer():
    text = describe_reports(REPORTS, None, max_tokens=5)
    assert (text.unit, text.limit) == ("words", 3)
    assert text.histogram == {1: 1, 2: 1, 3: 2, 8: 1}
    assert (text.median, text.longest) == (3, 8)
    assert text.cut == pytest.approx(1 / 5)
    assert (text.distinct, text.repeated) == (4, pytest.approx(1 / 5))
    assert text.frequent == [("one two three", 2)]
    assert describe_reports(REPORTS, None, 5, frozenset({"one two three"})).frequent == []


def test_wordpieces_are_counted_as_training_cuts_them():
    reports = [report_of(i) for i in range(40)] + ["xyzzy " * 9]
    tokenizer = train_tokenizer(reports[:40], 200)
    text = describe_reports(reports, cut_reports(tokenizer, reports, 12), max_tokens=12)
    lengths = [len(tokenizer(report)["input_ids"]) for report in reports]
    assert text.unit == "WordPieces"
    assert sum(n * k for n, k in text.histogram.items()) == sum(lengths)
    assert text.cut == pytest.approx(sum(n > 12 for n in lengths) / 41)
    assert sum(n > text.covering for n in lengths) / 41 <= 0.05
    assert sum(n > text.covering - 1 for n in lengths) / 41 > 0.05


def test_images_are_counted_once_and_patients_by_image():
    def fact(name, mean, size=(4, 6)):
        return ImageFacts(None, name, name, size, Intensity(0, 1, mean, 0))

    facts = {
        ImageAddress(Path(p)): f
        for p, f in {"a": fact("A", 0.01), "b": fact("A", 0.01), "c": fact("C", 0.99),
                     "d": fact("D", 0.5, (8, 8)), "e": ImageFacts(None, "E")}.items()
    }  # fmt: skip
    cells = [("a", "p"), ("a", "p"), ("b", "p"), ("c", "q"), ("d", "q"), ("e", "r")]
    addresses = [ImageAddress(Path(name)) for name, _ in cells]
    rows = [
        PairRow(Path("t"), i, n, address, "r", p, facts=facts[address])
        for i, ((n, p), address) in enumerate(zip(cells, addresses, strict=True))
    ]
    images = describe_images(rows)
    assert images.distinct == 4
    assert images.sizes == [(4, 6, 2), (8, 8, 1)]
    assert (images.other_sizes, images.unknown_sizes) == (0, 1)
    assert [i for i, n in enumerate(images.brightness) if n] == [0, 12, 24]
    patients = describe_patients(rows)
    assert (patients.patients, patients.histogram, patients.most) == (3, {1: 1, 2: 2}, 2)
    assert (
        describe_patients([PairRow(Path("t"), 2, "a", ImageAddress(Path("a")), "r", None)]) is None
    )


@pytest.mark.parametrize("limit", [None, 3, 30, 97, 500])
@pytest.mark.parametrize("numbers", [[5], [1, 2, 3], list(range(4, 400, 7)), [2, 1000]])
def test_no_bar_is_on_both_sides_of_the_limit(numbers, limit):
    weights = [i + 1 for i in range(len(numbers))]
    edges = integer_edges(np.array(numbers), limit)
    counts, _ = np.histogram(numbers, edges, weights=weights)
    assert counts.sum() == sum(weights)
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        assert count == sum(k for n, k in zip(numbers, weights, strict=True) if low < n < high)
        assert limit is None or not low < limit + 0.5 < high
    assert len(counts) <= 42


def test_bars_beyond_the_limit_differ_and_the_line_stands_between():
    axes = Figure().subplots()
    draw_bars(axes, np.array([3, 0, 12345]), np.array([0.5, 15.5, 30.5, 300.5]), 30.5)
    assert [bar.get_height() for bar in axes.patches] == [3, 0, 12345]
    assert [bar.get_hatch() for bar in axes.patches] == [None, None, "////"]
    assert [line.get_xdata()[0] for line in axes.lines] == [30.5]
    assert [text.get_text() for text in axes.texts] == ["cut after 30"]


def test_a_drawing_is_well_formed_and_the_same_each_time():
    drawn = [
        draw_histogram(np.array([0, 3, 1]), np.linspace(0, 1, 4), "x < y", "reports", 0.5)
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    kind, content = drawn[0].split(",")
    assert kind == "data:image/svg+xml;base64"
    svg = b64decode(content).decode()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert VERMILION.lower() in svg
