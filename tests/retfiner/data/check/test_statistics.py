"""Numbers of a collection against counting by hand, and the bars they are drawn as."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from retfiner.data.check.charts import bars_of_integers, bars_of_shares, histogram_svg
from retfiner.data.check.images import ImageFacts, Intensity
from retfiner.data.check.rows import Row
from retfiner.data.check.statistics import describe_images, describe_patients, describe_reports
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
    text = describe_reports(reports, tokenizer, max_tokens=12)
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
    rows = [Row(Path("t"), i, n, ImageAddress(Path(n)), "r", p) for i, (n, p) in enumerate(cells)]
    images = describe_images(rows, facts)
    assert images.distinct == 4
    assert images.sizes == [(4, 6, 2), (8, 8, 1)]
    assert (images.other_sizes, images.unknown_sizes) == (0, 1)
    assert [i for i, n in enumerate(images.brightness) if n] == [0, 12, 24]
    patients = describe_patients(rows)
    assert (patients.patients, patients.histogram, patients.most) == (3, {1: 1, 2: 2}, 2)
    assert describe_patients([Row(Path("t"), 2, "a", ImageAddress(Path("a")), "r", None)]) is None


@pytest.mark.parametrize("limit", [None, 3, 30, 97, 500])
@pytest.mark.parametrize("numbers", [[5], [1, 2, 3], list(range(4, 400, 7)), [2, 1000]])
def test_no_bar_is_on_both_sides_of_the_limit(numbers, limit):
    histogram = {n: i + 1 for i, n in enumerate(numbers)}
    bars = bars_of_integers(histogram, limit)
    assert sum(bars.counts) == sum(histogram.values())
    for low, high, count in zip(bars.edges[:-1], bars.edges[1:], bars.counts, strict=True):
        assert count == sum(k for n, k in histogram.items() if low < n < high)
        assert limit is None or not low < limit + 0.5 < high
    assert len(bars.counts) <= 42


@pytest.mark.parametrize(
    ("bars", "limit"),
    [
        (bars_of_integers({5: 1}), None),
        (bars_of_integers({5: 3}, 30), 30.5),
        (bars_of_integers({1: 1, 2: 0, 300: 12345}, 30), 30.5),
        (bars_of_shares([0, 3, 0, 1]), None),
    ],
)
def test_a_drawing_is_well_formed_and_within_its_frame(bars, limit):
    svg = histogram_svg(bars, "x < y", "reports", limit, "cut after 30" if limit else "")
    root = ElementTree.fromstring(svg)
    width, height = map(float, root.get("viewBox").split()[2:])
    drawn = [r for r in root.iter("rect") if r.get("x")]
    assert len(drawn) == sum(count > 0 for count in bars.counts)
    for rect in drawn:
        x, y, w, h = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
        assert x >= 0 and x + w <= width
        assert y >= 0 and y + h <= height
    heights = [float(r.get("height")) for r in drawn]
    counts = [count for count in bars.counts if count]
    tallest = max(heights) / max(counts)
    assert max(heights) > height / 4
    assert heights == pytest.approx([count * tallest for count in counts], abs=0.11)
    beyond = sum(r.get("fill") == "url(#beyond)" for r in drawn)
    nearby = zip(bars.edges, bars.counts, strict=False)
    assert beyond == sum(limit is not None and low >= limit and n > 0 for low, n in nearby)
    assert "x &lt; y" in svg
    ticks = re.findall(r'text-anchor="middle">([\d.]+)</text>', svg)
    assert len(ticks) >= 1
