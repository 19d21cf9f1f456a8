"""Ranks, precision and shortlists against plain loops; memory with 20,000 pairs."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom

from retfiner.evaluation.retrieval import ranking as ranking_module
from retfiner.evaluation.retrieval.metrics import chance_average_precision, chance_median_rank
from retfiner.evaluation.retrieval.ranking import rank, rerank
from retfiner.training.recall import chance_recall, chance_recall_at, first_right


def embeddings(n, width=6, seed=0, ties=False):
    vectors = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    if ties:  # coarse vectors give many equal cosines
        return (vectors * 1.2).round()
    return torch.nn.functional.normalize(vectors, dim=1)


def naive_order(scores, is_right):
    """Best first; among equals the wrong ones first."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], is_right[i]))


def naive_precision(order, is_right):
    found, total = 0, 0.0
    for place, candidate in enumerate(order, 1):
        if is_right[candidate]:
            found += 1
            total += found / place
    return total / found


@pytest.fixture(params=[False, True], ids=["distinct", "ties"])
def case(request):
    queries, candidates = embeddings(23, ties=request.param), embeddings(31, 6, 1, request.param)
    query_ids = torch.arange(23) % 7
    candidate_ids = torch.arange(31) % 7
    return queries, candidates, query_ids, candidate_ids


def ranked(case, shortlist):
    queries, candidates, query_ids, candidate_ids = case
    return rank(queries, candidates, lambda some: query_ids[some, None] == candidate_ids, shortlist)


def naive_scores(case):
    queries, candidates, query_ids, candidate_ids = case
    scores = (queries @ candidates.T).tolist()
    right = (query_ids[:, None] == candidate_ids[None]).tolist()
    return scores, right


def test_ranks_and_precision_are_those_of_a_sorted_list(case, monkeypatch):
    monkeypatch.setattr(ranking_module, "ELEMENTS", 31 * 4)  # several blocks of four queries
    ranking = ranked(case, 9)
    for query, (scores, right) in enumerate(zip(*naive_scores(case), strict=True)):
        order = naive_order(scores, right)
        first = next(place for place, c in enumerate(order) if right[c])
        assert ranking.ranks[query] == first
        assert ranking.precision[query].item() == pytest.approx(naive_precision(order, right))
        assert ranking.n_right[query] == sum(right)
        listed = ranking.shortlist[query].tolist()
        assert [right[c] for c in listed] == ranking.is_right[query].tolist()
        expected = [(scores[c], right[c]) for c in order[:9]]
        assert [right for _, right in expected] == ranking.is_right[query].tolist()
        np.testing.assert_allclose(ranking.scores[query], [s for s, _ in expected], rtol=1e-6)
    queries, candidates, query_ids, candidate_ids = case
    theirs = first_right(queries @ candidates.T, query_ids[:, None] == candidate_ids)
    assert torch.equal(ranking.ranks, theirs), "the convention is that of training's own validation"


@pytest.mark.parametrize("levels", [1000, 3], ids=["distinct", "ties"])
def test_reranking_is_a_naive_reordering_of_the_first_few(case, levels):
    top = 5
    before = ranked(case, 9)
    draws = torch.randint(levels, (23, top), generator=torch.Generator().manual_seed(4))
    after = rerank(before, draws / levels)
    for query, (scores, right) in enumerate(zip(*naive_scores(case), strict=True)):
        full = before.shortlist[query].tolist()
        rest = [c for c in naive_order(scores, right) if c not in full[:top]]
        match = dict(zip(full[:top], draws[query].tolist(), strict=True))
        order = sorted(full[:top], key=lambda c: (-match[c], right[c])) + rest
        first = next(place for place, c in enumerate(order) if right[c])
        assert after.ranks[query] == first
        assert after.precision[query].item() == pytest.approx(naive_precision(order, right))
        assert after.shortlist[query, top:].tolist() == full[top:]
        assert set(after.shortlist[query, :top].tolist()) == set(full[:top])
        matches = [match[c] for c in after.shortlist[query, :top].tolist()]
        assert matches == sorted(matches, reverse=True)
        for place, candidate in enumerate(after.shortlist[query].tolist()):
            assert after.scores[query, place].item() == pytest.approx(scores[candidate], rel=1e-6)


def test_a_query_without_a_right_candidate_is_refused():
    vectors = embeddings(3)
    with pytest.raises(ValueError, match="no right candidate"):
        ranked((vectors, vectors, torch.tensor([0, 1, 9]), torch.arange(3)), 2)


def test_no_query_finds_nothing():
    vectors = embeddings(3)
    found = rank(vectors[:0], vectors, lambda some: some[:, None] == torch.arange(3), 2)
    assert found.ranks.shape == found.precision.shape == (0,)
    assert found.shortlist.shape == found.scores.shape == found.is_right.shape == (0, 2)


def test_chance_is_what_random_orders_score():
    n_right, total = np.array([1, 1, 4, 9]), 12
    rng = np.random.default_rng(0)
    places = np.full((4, 4000), 0)
    precision = np.zeros((4, 4000))
    for row, m in enumerate(n_right):
        for draw in range(4000):
            spots = np.sort(rng.permutation(total)[:m]) + 1
            places[row, draw] = spots[0]
            precision[row, draw] = (np.arange(1, m + 1) / spots).mean()
    for k in (1, 5, 10):
        assert chance_recall_at(k, total, n_right) == pytest.approx((places <= k).mean(), abs=0.01)
    assert chance_average_precision(total, n_right) == pytest.approx(precision.mean(), abs=0.01)
    assert chance_median_rank(total, n_right) == np.median(places)
    assert chance_recall_at(20, total, n_right) == 1.0


@pytest.mark.parametrize("total", [1, 2, 37, 1000, 10**6])
def test_chance_is_scipys(total):
    for k in {1, 5, 10, total // 2 + 1, 10 * total}:
        for right in {1, min(2, total), (total + 1) // 2, total}:
            drawn = min(k, total)
            expected = hypergeom.sf(0, total, right, drawn)
            found = chance_recall_at(k, total, np.array([right, right]))
            assert found == pytest.approx(expected, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("total", [1, 2, 3, 12, 225, 226, 1000, 3466])
def test_half_of_single_right_candidates_are_found_within_half_the_places(total):
    assert chance_median_rank(total, np.ones(5, dtype=int)) == math.ceil(total / 2)


def test_chance_agrees_with_trainings_own():
    ids = torch.tensor([5, 5, 5, 8, 9, 9, 1, 2, 3, 4, 6, 7])
    counts = ids.unique(return_counts=True)[1].numpy()
    theirs = chance_recall(ids)
    for k in (1, 5, 10):
        image = chance_recall_at(k, len(counts), np.ones(len(ids), dtype=int))
        text = chance_recall_at(k, len(ids), counts)
        assert math.isclose(image, theirs[f"image_to_text_recall@{k}"], abs_tol=1e-9)
        assert math.isclose(text, theirs[f"text_to_image_recall@{k}"], abs_tol=1e-9)


MEMORY = """
import resource, torch
from retfiner.evaluation.retrieval.ranking import rank_both
from retfiner.training.recall import Pairing
n = 20_000
g = torch.Generator().manual_seed(0)
images = torch.nn.functional.normalize(torch.randn(n, 64, generator=g), dim=1)
report = torch.arange(n) % 1_000
texts = images[:1_000].contiguous()
# pages of the libraries' code count too
rank_both(images[:2_000], texts, Pairing.of(report[:2_000]), 16)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rankings = rank_both(images, texts, Pairing.of(report), 16)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert (rankings["image_to_text"].ranks[:1_000] == 0).all()
print((after - before) * 1024)
"""


def test_memory_does_not_grow_with_the_square_of_the_pairs():
    """All scores of 20,000 x 1,000 are 80 MB, and half a dozen such arrays would be needed."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=120, check=True
    )

    assert int(done.stdout) < 60e6
