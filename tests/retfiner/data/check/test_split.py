"""Who goes to which side."""

from pathlib import Path

import numpy as np
import pytest

from retfiner.common.errors import InputError
from retfiner.data.check.images import ImageFacts
from retfiner.data.check.split import find_leaks, group_rows, require_disjoint, split_rows
from retfiner.data.manifest import Manifest, split_by_patient
from retfiner.data.pair_table import PairRow
from retfiner.vision.images import ImageAddress


def make(*cells):
    """Rows of (patient, pixels, side)."""
    rows = []
    for i, (patient, pixels, side) in enumerate(cells):
        address, facts = ImageAddress(Path(f"{i}.png")), ImageFacts(None, pixels, pixels)
        cells = (f"{i}.png", address, f"report {i}", patient, side)
        rows.append(PairRow(Path("p.csv"), i + 2, *cells, facts=facts))
    return rows


def random_rows(seed, patients=30, images=150, n=200, known=True):
    rng = np.random.default_rng(seed)
    return make(
        *((f"p{rng.integers(patients):02d}" if known else None, f"i{rng.integers(images)}", "")
          for _ in range(n))
    )  # fmt: skip


def components(rows):
    """Naively: merge sets that meet until none do."""
    sets = [{("p", r.number if r.patient is None else r.patient), ("i", r.identity)} for r in rows]
    merged = True
    while merged:
        merged = False
        for a in range(len(sets)):
            for b in range(a + 1, len(sets)):
                if sets[a] and sets[b] and sets[a] & sets[b]:
                    sets[a], sets[b], merged = sets[a] | sets[b], set(), True
    return [next(i for i, s in enumerate(sets) if ("i", r.identity) in s) for r in rows]


@pytest.mark.parametrize("known", [True, False])
def test_groups_are_the_components_of_patients_and_images(known):
    rows = random_rows(0, patients=60, images=120, n=90, known=known)
    ours, naive = group_rows(rows), components(rows)
    assert 5 < len(set(naive)) < 80
    assert len(set(zip(ours, naive, strict=True))) == len(set(ours)) == len(set(naive))


@pytest.mark.parametrize("seed", range(5))
def test_no_patient_and_no_image_is_on_two_sides(seed):
    rows = random_rows(seed, images=1500)
    groups = group_rows(rows)
    sides = split_rows(rows, groups, 0.2, seed)
    assert set(sides) == {"train", "val"}
    require_disjoint(rows, sides)
    for key in (lambda r: r.patient, lambda r: r.identity):
        train, val = ({key(r) for r, s in zip(rows, sides, strict=True) if s == side}
                      for side in ("train", "val"))  # fmt: skip
        assert not train & val
    assert sides == split_rows(rows, groups, 0.2, seed)


def test_without_shared_images_the_split_is_that_of_training():
    rows = random_rows(3, images=10**9)
    sides = split_rows(rows, group_rows(rows), 0.1, 7)
    table = Manifest(Path("p.csv"), [r.image for r in rows], [r.report for r in rows],
                     [r.patient for r in rows], [r.number for r in rows], [])  # fmt: skip
    _, validation = split_by_patient(table, 0.1, 7)
    assert [r.number for r, s in zip(rows, sides, strict=True) if s == "val"] == validation.rows


def test_one_image_under_every_patient_cannot_be_split():
    rows = make(("a", "I", ""), ("b", "I", ""), ("secret", "I", ""), ("secret", "J", ""))
    with pytest.raises(InputError, match=r"link all 3 of them: rows 2, 3, 4") as caught:
        split_rows(rows, group_rows(rows), 0.5, 0)
    assert "secret" not in str(caught.value)


def test_leaks_of_a_given_split_go_from_the_later_side():
    rows = make(
        ("a", "1", "val"), ("a", "2", "train"), ("b", "3", "train"), ("c", "3", "val"),
        ("d", "4", "val"), ("d", "5", "test"), ("e", "6", "test"), ("c", "7", "val"),
    )  # fmt: skip
    problems = find_leaks(rows, group_rows(rows), range(len(rows)))
    assert [(p.index, p.role, p.kind, p.detail, p.left_out) for p in problems] == [
        (0, "patient", "patient on both sides", "row 3 is in train", True),
        (3, "image", "image on both sides", "row 4 is in train", True),
        (7, "image", "image on both sides", "row 4 is in train", True),
        (5, "patient", "patient on both sides", "row 6 is in val", True),
    ]
    gone = {p.index for p in problems}
    kept = [r for i, r in enumerate(rows) if i not in gone]
    require_disjoint(kept, [r.side for r in kept])


def test_a_split_that_leaks_is_never_written():
    rows = make(("a", "1", ""), ("a", "2", ""), ("b", "1", ""))
    with pytest.raises(RuntimeError, match="one patient on two sides, row 3"):
        require_disjoint(rows, ["train", "val", "train"])
    with pytest.raises(RuntimeError, match="one image on two sides, row 4"):
        require_disjoint(rows, ["train", "train", "val"])
