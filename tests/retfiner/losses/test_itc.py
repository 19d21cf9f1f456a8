"""ITC against a loop written from its definition."""

from __future__ import annotations

import math

import pytest
import torch

from retfiner.losses.itc import ImageTextContrastive

SMOOTHING = 0.1


def naive(similarity, same):
    """Mean over rows and both directions of -sum(target x log softmax), target smoothed."""
    size = len(similarity)
    total = 0.0
    for scores, right in ((similarity.tolist(), same), (similarity.T.tolist(), same.T)):
        for i in range(size):
            matches = [j for j in range(size) if right[i][j]]
            log_sum = math.log(sum(math.exp(s) for s in scores[i]))
            for j in range(size):
                target = (1 - SMOOTHING) * (j in matches) / len(matches) + SMOOTHING / size
                total -= target * (scores[i][j] - log_sum) / size
    return total / 2


def scores(size=7, seed=0):
    return torch.randn(size, size, generator=torch.Generator().manual_seed(seed)).double() * 3


def sharing(ids):
    ids = torch.tensor(ids)
    return ids[:, None] == ids[None, :]


@pytest.mark.parametrize("ids", [range(7), [0, 0, 1, 2, 0, 3, 1], [4] * 7])
def test_equals_the_definition(ids):
    same = sharing(list(ids))
    ours = ImageTextContrastive(SMOOTHING).from_similarity(scores(), same)
    assert ours.item() == pytest.approx(naive(scores(), same), abs=1e-12)


def test_an_image_of_two_reports_one_of_which_another_image_has_alone():
    """Pairs 0 and 1 are of one image; pair 2 has the report of pair 1."""
    right = torch.eye(7) > 0
    right[:2, :3] = True  # of the image: its own reports and the copy of one of them
    right[2, 1] = True  # of the other image: its one report, twice
    ours = ImageTextContrastive(SMOOTHING).from_similarity(scores(), right)
    assert ours.item() == pytest.approx(naive(scores(), right), abs=1e-12)
    both = torch.eye(7) > 0
    both[:3, :3] = True
    assert ours.item() != pytest.approx(naive(scores(), both), abs=1e-3)


def test_images_and_texts_play_the_same_part():
    loss, same = ImageTextContrastive(), sharing([0, 0, 1, 2, 0, 3, 1])
    assert torch.allclose(
        loss.from_similarity(scores(), same), loss.from_similarity(scores().T, same)
    )


def test_the_order_of_the_pairs_does_not_matter():
    loss, same = ImageTextContrastive(), sharing([0, 0, 1, 2, 0, 3, 1])
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    permuted = loss.from_similarity(scores()[order][:, order], same[order][:, order])
    assert torch.allclose(permuted, loss.from_similarity(scores(), same))


def test_finding_a_twin_is_as_good_as_finding_ones_own():
    """Images 0 and 1 carry one report: swapping whose text they find changes nothing."""
    similarity = scores()
    swapped = similarity.clone()
    swapped[0, [0, 1]] = similarity[0, [1, 0]]
    swapped[1, [0, 1]] = similarity[1, [1, 0]]
    shared = sharing([0, 0, 1, 2, 3, 4, 5])
    image_to_text = ImageTextContrastive(0.0)

    def one_way(s, same):
        target = same.double() / same.sum(1, keepdim=True)
        return -(target * s.log_softmax(1)).sum(1).mean()

    assert torch.allclose(one_way(similarity, shared), one_way(swapped, shared))
    alone = sharing(list(range(7)))
    assert not torch.allclose(
        image_to_text.from_similarity(similarity, alone),
        image_to_text.from_similarity(swapped, alone),
    )


def test_identical_reports_all_over_leave_nothing_to_learn():
    """All targets alike and all scores alike: the loss is log B, and no score wants to move."""
    similarity = torch.zeros(5, 5, dtype=torch.float64, requires_grad=True)
    loss = ImageTextContrastive().from_similarity(similarity, sharing([3] * 5))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(5), abs=1e-12)
    assert similarity.grad.abs().max() < 1e-12


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_illegal_smoothing_fails_at_construction(smoothing):
    with pytest.raises(ValueError, match="label_smoothing"):
        ImageTextContrastive(smoothing)
