"""The table in memory: vectors as the API makes them, bad rows named or left out."""

from __future__ import annotations

import numpy as np
import pytest

from retfiner.browse.collection import Neighbour, embed
from retfiner.browse.render import literal, report_table
from retfiner.common.errors import InputError
from retfiner.data.manifest import read_manifest
from retfiner.data.pair_table import Columns
from tests.helpers.refinement import (
    damage_in_the_middle,
    read_csv,
    report_of,
    write_csv,
    write_pairs,
)


def test_vectors_are_the_apis_and_reports_are_embedded_once(model, tmp_path):
    rows = read_csv(write_pairs(tmp_path, pairs=40))
    every = [report_of(index % 7) for index in range(40)]
    repeated = [[image, report, ""] for (image, _, _), report in zip(rows, every, strict=True)]
    manifest = read_manifest(
        write_csv(tmp_path / "p.csv", repeated), columns=Columns(patient="none")
    )
    collection = embed(model, manifest)
    assert collection.reports == every[:7]
    assert [collection.report(place) for place in range(40)] == every
    images = model.encode_images(manifest.images)
    np.testing.assert_allclose(collection.image_vectors, images, atol=2e-6)
    texts = model.encode_texts(every)
    np.testing.assert_allclose(collection.report_vectors[collection.report_of], texts, atol=2e-6)


def test_a_broken_bscan_is_named_or_left_out(model, tmp_path):
    manifest = read_manifest(write_pairs(tmp_path, pairs=6))
    damage_in_the_middle(manifest.images[2].path)
    with pytest.raises(InputError, match=r"row 4 of .*pairs\.csv"):
        embed(model, manifest)
    collection = embed(model, manifest, skip=True)
    assert collection.rows == [2, 3, 5, 6, 7] and collection.left_out == 1
    assert len(collection.image_vectors) == 5 and collection.report(2) == report_of(3)


def test_a_bscan_that_went_away_is_named_by_its_row(model, tmp_path):
    manifest = read_manifest(write_pairs(tmp_path, pairs=3))
    collection = embed(model, manifest)
    manifest.images[1].path.unlink()
    with pytest.raises(InputError, match="row 3") as caught:
        collection.read(1)
    assert str(tmp_path) not in str(caught.value)


def test_reports_are_shown_as_they_are_never_as_markup(model, tmp_path):
    collection = embed(model, read_manifest(write_pairs(tmp_path, pairs=2)))
    collection.reports[0] = "<img src=x> A & B"
    table = report_table(collection, [Neighbour(0, -0.5)], own=None)
    assert "<td>&lt;img src=x&gt; A &amp; B</td>" in table and "−0.500" in table
    assert "Match" not in table
    assert literal("*a* [b](c) :red[d] $e$ <f>\n# g") == (
        r"\*a\* \[b\]\(c\) \:red\[d\] \$e\$ \<f\> \# g"
    )
