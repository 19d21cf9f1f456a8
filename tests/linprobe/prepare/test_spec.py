"""What holds for every data set: the B-scans of a volume, counts, and what is left out."""

from __future__ import annotations

import pytest

from linprobe.prepare.spec import BScan, DataSetSpec, LeftOut, Listing, Options, bscans_of
from retfiner.common.errors import InputError


def chosen(choice, count):
    slices = [(f"v#{k}", print) for k in range(count)]
    return [int(b.source[2:]) for b in bscans_of(slices, choice, "v", "name", "A", "p")]


@pytest.mark.parametrize(
    ("count", "central"), [(1, 0), (2, 1), (5, 2), (19, 9), (61, 30), (100, 50)]
)
def test_the_central_bscan(count, central):
    assert chosen("central", count) == [central]
    assert chosen("all", count) == list(range(count))
    assert chosen(count - 1, count) == [count - 1]
    for index in (count, -1):
        with pytest.raises(InputError, match="v has no B-scan"):
            chosen(index, count)


def test_a_volume_without_bscans_is_an_error():
    with pytest.raises(InputError, match="0 B-scans"):
        chosen("central", 0)


def listing(labels, folder, counts=None, **facts):
    about = dict.fromkeys(("task", "licence", "where", "citation", "patients"), "-")
    bscans = [BScan("same name", label, None, "x.png", print) for label in labels]
    odd = LeftOut("files are odd", ["o.png"], 20, "remove them")
    spec = DataSetSpec(
        name="Toy", find=lambda *_: Listing(bscans, ["own"], [odd], counts), **about, **facts
    )
    return spec.list_bscans(folder, Options())


def test_counts_are_compared_by_class_or_altogether(tmp_path):
    def notes(published, counts=None):
        return listing("AAB", tmp_path, counts, classes=("A", "B"), published=published).notes[2:]

    assert notes({"A": 2, "B": 1}) == notes({"": 3}) == notes({}) == []
    assert notes({"A": 2}, {"A": 2, "C": 9}) == []
    [note] = notes({"A": 2, "B": 1}, {"A": 2})
    assert "A 2, B 0; published: A 2, B 1" in note
    [note] = notes({"": 4})
    assert "B-scans: 3; published: 4." in note


def test_names_are_made_safe_and_unique_and_what_is_left_out_is_told(tmp_path):
    found = listing("AB", tmp_path, classes=("A", "B"))
    assert [bscan.name for bscan in found.bscans] == ["same_name", "same_name_2"]
    assert found.notes == ["own", "1 of 20 files are odd; left out: o.png."]


@pytest.mark.parametrize(
    ("labels", "words"),
    [("A", "Nothing of B was found"), ("ABC", "classes that Toy does not have")],
)
def test_classes_that_are_absent_or_unknown(tmp_path, labels, words):
    with pytest.raises(InputError, match=words):
        listing(labels, tmp_path, classes=("A", "B"))
