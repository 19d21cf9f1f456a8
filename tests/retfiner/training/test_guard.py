"""Is the encoder better? Without labels."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from retfiner.training.guard import (
    FEWEST_PATIENTS,
    Change,
    compare,
    encoder_advice,
    neighbour_agreement,
    report_vectors,
)

REPORTS = ["Large drusen.", "large  DRUSEN", "Subretinal fluid.", "Subretinal fluid, large."]


def naive(features, similarity, patients, query, neighbours):
    cosine = features @ features[query] / np.linalg.norm(features, axis=1)
    others = [i for i in np.argsort(-cosine) if patients[i] != patients[query]]
    return np.mean([similarity[query, i] for i in others[:neighbours]])


def test_identical_reports_are_fully_alike_and_others_by_their_words():
    vectors = report_vectors(REPORTS)
    similarity = (vectors @ vectors.T).toarray()
    assert np.diag(similarity) == pytest.approx(1)
    assert similarity[0, 1] == pytest.approx(1), "case and white space do not count"
    assert similarity[0, 2] == pytest.approx(0)
    assert 0.4 < similarity[2, 3] < 1


def test_chinese_reports_are_compared_by_character():
    reports = ["黄斑区水肿，厚度310微米。", "黄斑区水肿，厚度298微米。", "正常。"]
    vectors = report_vectors(reports)
    similarity = (vectors @ vectors.T).toarray()
    assert similarity[0, 1] > 0.6 and similarity[0, 2] == 0


@pytest.mark.parametrize("neighbours", [1, 3, 100])
def test_agreement_equals_its_definition(neighbours):
    rng = np.random.default_rng(0)
    reports = [REPORTS[i] for i in rng.integers(4, size=30)]
    patients = [f"p{i}" for i in rng.integers(8, size=30)]
    features = rng.standard_normal((30, 6))
    vectors = report_vectors(reports)
    similarity = (vectors @ vectors.T).toarray()
    found = neighbour_agreement(features, vectors, patients, [3, 0, 29], neighbours)
    expected = [naive(features, similarity, patients, query, neighbours) for query in (3, 0, 29)]
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_patients_own_scans_are_no_neighbours():
    features = np.array([[1.0, 0.0], [1.0, 0.01], [0.9, 0.1], [0.0, 1.0]])
    vectors = report_vectors(["a b", "a b", "c d", "e f"])
    assert neighbour_agreement(features, vectors, ["p", "p", "q", "q"], [0], 1) == [0.0]
    with pytest.raises(ValueError, match="one patient"):
        neighbour_agreement(features, vectors, ["p"] * 4, [0])


def sorted_by_finding(noise, patients=40, scans=3):
    """Features that tell findings apart the better the less noise there is."""
    rng = np.random.default_rng(1)
    findings = rng.integers(4, size=patients).repeat(scans)
    names = [f"p{i}" for i in range(patients) for _ in range(scans)]
    features = np.eye(4)[findings] + noise * rng.standard_normal((len(findings), 4))
    vectors = report_vectors([REPORTS[0], "fluid", "hole", "membrane"][f] for f in findings)
    return neighbour_agreement(features, vectors, names, range(len(names))), names


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [(2.0, 0.2, "better"), (0.2, 2.0, "worse"), (1.0, 1.0, "no difference seen")],
)
def test_what_is_found(before, after, finding):
    (base, patients), (refined, _) = sorted_by_finding(before), sorted_by_finding(after)
    change = compare(base, refined, patients, 0.25, np.random.default_rng(0))
    assert change.finding == finding
    assert change.low <= change.refined - change.base <= change.high


def test_few_patients_say_nothing_and_the_numbers_stand():
    patients = [f"p{i}" for i in range(FEWEST_PATIENTS)]
    ones, rng = np.ones(FEWEST_PATIENTS), np.random.default_rng(0)
    enough = compare(0 * ones, ones, patients, 0.25, rng)
    assert (enough.finding, enough.patients) == ("better", 30)
    few = compare(0 * ones[1:], ones[1:], patients[1:], 0.25, rng)
    assert (few.finding, few.low, few.patients) == ("too few patients to say", 1.0, 29)
    assert "try: a larger --val_fraction, or more pairs" in encoder_advice(few)[0]
    assert encoder_advice(enough) == []


def test_a_finding_in_a_line():
    change = Change(0.33, 0.41, 0.03, 0.12, 0.2, 120)
    assert str(change) == (
        "better on your own reports (0.410 against the base's 0.330, interval of the change +0.030 "
        "to +0.120, 120 validation patients)"
    )
    assert str(change._replace(patients=7)).startswith(
        "too few patients to say whether it is better on your own reports (0.410 against"
    )
    assert (
        "warning: refinement made the encoder worse"
        in encoder_advice(change._replace(low=-0.12, high=-0.03))[0]
    )


def test_a_change_is_read_from_metrics_and_from_checkpoints():
    change = Change(0.33, 0.41, 0.03, 0.12, 0.2, 120)
    assert Change.read({**change._asdict(), "step": 7}) == change
    row = {f"guard/{name}": float(value) for name, value in change._asdict().items()}
    assert Change.read(row, "guard/") == change
    assert Change.read({}) is None
    assert Change.read(row | {"guard/low": float("nan")}, "guard/") is None


def test_the_interval_covers_by_patient():
    """Where nothing changes, it holds 0 in 95 of 100 cases, scans of a patient being alike."""
    rng = np.random.default_rng(5)
    patients = [f"p{i}" for i in range(30) for _ in range(4)]
    held = 0
    for _ in range(400):
        shared = rng.standard_normal(30).repeat(4)
        noise = 0.3 * rng.standard_normal(120)
        change = compare(np.zeros(120), shared + noise, patients, 0.0, rng, resamples=400)
        held += change.low <= 0 <= change.high
    assert 0.90 <= held / 400 <= 0.98


def test_reports_weigh_what_scikit_learn_gives_them_to_the_last_digit():
    reports = [
        "Drusen and drusen, subretinal fluid.", "No fluid", "Ödem 1,5 µm; no Fluid no fluid", " ",
        "x_y fluid of the fovea", "subretinal fluid", "No fluid",
    ]  # fmt: skip
    library = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
    ).fit_transform(reports)
    ours = report_vectors(reports)
    assert ours.shape == library.shape
    assert ((ours @ ours.T) != (library @ library.T)).nnz == 0
    assert report_vectors([" ", "?"]).shape == (2, 0)
