"""The measure itself: perfect maps, blind maps, and what chance means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from retfiner.common.errors import InputError
from retfiner.data.phantoms.cohort import make_cohort, stream
from retfiner.data.phantoms.reports import describe
from retfiner.data.phantoms.scene import KINDS
from retfiner.data.phantoms.wording import BRIEF, SENTENCES
from retfiner.explanation.grounding import PHRASES, GroundedPhrase, phrase_maps
from retfiner.explanation.pointing import as_table, auroc, compare_words, main, measure, on_patches
from retfiner.export.loading import read_model
from retfiner.refine import refine
from tests.helpers.refinement import make_material, settings

SIDE = 8


def cases_and_places(count=40, seed=0):
    """Findings of one patch each, at random places."""
    rng = np.random.default_rng(seed)
    cases, places = [], rng.integers(0, SIDE, (count, 2))
    for number, (row, column) in enumerate(places):
        mask = np.zeros((80, 120), bool)
        mask[row * 10 + 2 : row * 10 + 8, column * 15 + 3 : column * 15 + 9] = True
        kind = ("drusen", "macular_hole")[number % 2]
        cases.append(GroundedPhrase(Path(f"{number // 2}.png"), "", kind, mask))
    return cases, places


def peaks(places):
    maps = np.zeros((len(places), SIDE, SIDE), np.float32)
    maps[np.arange(len(places)), places[:, 0], places[:, 1]] = 1
    return maps


def test_perfect_maps_always_hit_and_swapped_ones_as_chance():
    cases, places = cases_and_places(200)
    scores = measure(cases, {("perfect", None): peaks(places)})
    assert [score.finding for score in scores] == [None, "drusen", "macular_hole"]
    every = scores[0]
    assert every.hits == every.phrases == 200 and every.auroc == 1
    assert every.chance == pytest.approx(1 / 64)
    assert every.swapped == pytest.approx(1 / 64, abs=0.01)
    assert every.interval[0] > 0.97


def test_maps_that_always_look_where_findings_crowd_are_seen_through():
    cases, places = cases_and_places(100)
    crowded = [case._replace(mask=cases[0].mask) for case in cases[:60]] + cases[60:]
    maps = peaks(np.repeat(places[:1], 100, 0))
    every = measure(crowded, {("prior", None): maps})[0]
    assert every.hits >= 60 > 10 * every.chance
    assert every.swapped == pytest.approx(every.hits / 100, abs=0.01), "nothing beyond the prior"


def test_a_map_without_maximum_is_no_hit():
    cases, _ = cases_and_places(4)
    every = measure(cases, {("flat", None): np.ones((4, SIDE, SIDE), np.float32)})[0]
    assert (every.hits, every.auroc) == (0, 0.5)


def test_tolerance_widens_hits_and_chance_alike():
    cases, places = cases_and_places(50)
    beside = np.clip(places + 1, 0, SIDE - 1)
    strict, kind = (measure(cases, {("m", 0): peaks(beside)}, t)[0] for t in (0, 1))
    assert kind.hits == 50 and strict.hits < 10
    assert 4 / 64 <= kind.chance <= 9 / 64 and strict.chance == pytest.approx(1 / 64)


def test_words_are_compared_within_a_scan():
    cases, places = cases_and_places(60)
    own = compare_words(cases, {("m", 0): peaks(places)})[0]
    assert (own.phrases, own.own) == (60, 1.0) and own.other < 0.1
    exchanged = places.reshape(-1, 2, 2)[:, ::-1].reshape(-1, 2)
    other = compare_words(cases, {("m", 0): peaks(exchanged)})[0]
    assert other.other == 1.0 and other.own < 0.1
    assert compare_words(cases[::2], {("m", 0): peaks(places[::2])}) == []


def test_auroc_is_scikit_learns():
    rng = np.random.default_rng(0)
    inside = rng.random((SIDE, SIDE)) < 0.2
    maps = rng.integers(0, 6, (5, SIDE, SIDE)).astype(np.float32)  # with ties
    expected = [roc_auc_score(inside.ravel(), values.ravel()) for values in maps]
    np.testing.assert_allclose(auroc(maps, inside), expected, rtol=1e-6)
    assert (auroc(maps, np.zeros_like(inside)) == 0.5).all()


def test_a_patch_is_touched_by_a_single_pixel():
    mask = np.zeros((64, 96), bool)
    mask[8, 95] = mask[7, 0] = True
    assert np.argwhere(on_patches(mask, 8)).tolist() == [[0, 0], [1, 7]]


@pytest.mark.parametrize("kind", KINDS)
def test_phrases_find_a_finding_in_every_wording_but_its_paraphrases(kind):
    import re

    wordings = [*BRIEF[kind], *SENTENCES[kind]]
    hit = [bool(re.search(PHRASES[kind], wording, re.IGNORECASE)) for wording in wordings]
    assert sum(hit) >= 0.7 * len(hit), [w for w, h in zip(wordings, hit, strict=True) if not h]


def test_phrases_that_name_what_is_there_are_no_denials():
    """'no' before a phrase would point at nothing: reports deny only what is absent."""
    import re

    for index, scan in enumerate(make_cohort(150, seed=1)):
        report = describe(scan, stream(1, 11, index))
        for kind in scan.kinds:
            for match in re.finditer(PHRASES[kind], report, re.IGNORECASE):
                before = report[: match.start()].rsplit(".", 1)[-1].rsplit(",", 1)[-1]
                assert not re.search(r"\bno\b", before, re.IGNORECASE), (kind, report)


def test_a_model_is_scored_from_the_command_line(tmp_path, capsys):
    from retfiner.data.phantoms.__main__ import main as write

    phantoms = tmp_path / "phantoms"
    sizes = ["--patients", "8", "--train", "4", "--val", "4", "--test", "4"]
    write(["--output", str(phantoms), *sizes, "--height", "64", "--width", "96", "--workers", "1"])
    material = make_material(tmp_path, pairs=12, patients=6)
    run = refine(settings(material, tmp_path / "runs", max_epochs=1)).folder
    arguments = ["--model", str(run), "--phantoms", str(phantoms), "--device", "cpu"]
    capsys.readouterr()
    main([*arguments, "--patients", "all"])
    table = capsys.readouterr().out
    for name in ("attention 0", "attention 1", "weighted 0", "rollout"):
        assert name in table
    assert "weighted 1" not in table, "no word reaches the score from the last layer"

    with pytest.raises(InputError, match="nothing to point at"):
        phrase_maps(read_model(run), [])


def test_what_there_is_none_of_is_a_dash():
    """One scan has no other to swap maps with, and no second finding."""
    cases, places = cases_and_places(10)
    maps = {("weighted", 3): peaks(places)[:1]}
    table = as_table(measure(cases[:1], maps), compare_words(cases[:1], maps))
    assert "nan" not in table and "–" in table and "No scan has several findings" in table


def test_table_tells_shares_and_intervals():
    cases, places = cases_and_places(10)
    maps = {("weighted", 3): peaks(places)}
    table = as_table(measure(cases, maps), compare_words(cases, maps))
    assert "weighted 3" in table and "100.0 %" in table and "72 to 100 %" in table
    assert "in 100.0 % by its own words" in table
