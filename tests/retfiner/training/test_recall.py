"""Recall@k against a loop, with identical reports."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from retfiner.training.recall import RECALL_AT, chance_recall, first_right, retrieval_recall


def embeddings(seed, size=40):
    values = torch.randn(size, 16, generator=torch.Generator().manual_seed(seed))
    return F.normalize(values, dim=1)


def naive_recall(queries, candidates, query_ids, candidate_ids, k):
    found = {own: [] for own in query_ids}
    for query, own in zip(queries, query_ids, strict=True):
        scores = (candidates @ query).tolist()
        order = sorted(range(len(scores)), key=lambda j: -scores[j])[:k]
        found[own].append(any(candidate_ids[j] == own for j in order))
    return sum(sum(each) / len(each) for each in found.values()) / len(found)


@pytest.mark.parametrize("repeats", [1, 3])
def test_equals_the_definition(repeats):
    ids = [i // repeats for i in range(40)]
    images = embeddings(0)
    texts = embeddings(1)[ids]  # identical reports have identical embeddings
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2)).tolist()
    images, texts, ids = images[order], texts[order], [ids[i] for i in order]
    distinct = [ids.index(i) for i in sorted(set(ids))]
    recall = retrieval_recall(images, texts, torch.tensor(ids))
    for k in RECALL_AT:
        expected = naive_recall(images, texts[distinct], ids, [ids[i] for i in distinct], k)
        assert recall[f"image_to_text_recall@{k}"] == pytest.approx(expected)
        expected = naive_recall(texts[distinct], images, [ids[i] for i in distinct], ids, k)
        assert recall[f"text_to_image_recall@{k}"] == pytest.approx(expected)


def test_every_image_with_the_identical_report_counts():
    """Reports 0 and 1 each find the other's image: wrong, unless the two are one report."""
    images = torch.eye(4)
    texts = images[[1, 0, 2, 3]]
    apart = retrieval_recall(images, texts, torch.arange(4))
    together = retrieval_recall(images, texts, torch.tensor([7, 7, 2, 3]))
    assert apart["text_to_image_recall@1"] == 0.5
    assert together["text_to_image_recall@1"] == 1


def test_copies_of_a_wrong_report_take_one_place():
    """Nineteen images carry one report; the last finds that first and its own second."""
    texts = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0]] * 19 + [[0.8, 0.6]]), dim=1)
    images = torch.tensor([[1.0, 0.0]] * 20)
    recall = retrieval_recall(images, texts, torch.tensor([0] * 19 + [1]))
    assert recall["image_to_text_recall@1"] == pytest.approx(1 / 2), "one of two reports is found"
    assert recall["image_to_text_recall@5"] == 1


def test_the_commonest_reports_first_whatever_the_image_shows_is_chance():
    """Eight reports, the first of 40 images, the second of 20: always ranked in that order."""
    ids = torch.tensor([0] * 40 + [1] * 20 + [2, 3, 4, 5, 6, 7])
    angles = 0.1 * ids
    texts = torch.stack([angles.cos(), angles.sin()], 1)
    recall = retrieval_recall(torch.tensor([[1.0, 0.0]] * len(ids)), texts, ids)
    chance = chance_recall(ids)
    for k in (1, 5):
        name = f"image_to_text_recall@{k}"
        assert recall[name] == pytest.approx(chance[name]) == pytest.approx(k / 8)


def test_a_report_that_many_images_carry_has_one_vote():
    """Thirty-four images share a report that finds one of them; two others find each other's."""
    images = torch.eye(36)
    texts = torch.cat([images[:1].repeat(34, 1), images[[35, 34]]])
    recall = retrieval_recall(images, texts, torch.tensor([0] * 34 + [1, 2]))
    assert recall["text_to_image_recall@1"] == pytest.approx(1 / 3)
    assert recall["image_to_text_recall@1"] == pytest.approx(1 / 34 / 3), "34 images, one query"


def test_a_model_that_tells_nothing_apart_finds_nothing():
    same = F.normalize(torch.ones(20, 4), dim=1)
    assert retrieval_recall(same, same, torch.arange(20))["image_to_text_recall@10"] == 0


def test_a_model_that_has_broken_finds_nothing():
    texts, broken = embeddings(0, 20), torch.full((20, 16), torch.nan)
    assert not any(retrieval_recall(broken, texts, torch.arange(20)).values())
    one_broken = texts.clone()
    one_broken[3] = torch.nan
    recall = retrieval_recall(one_broken, texts, torch.arange(20))
    assert recall["image_to_text_recall@1"] == pytest.approx(19 / 20)


def test_images_and_reports_play_the_same_part_where_none_repeats():
    images, texts, ids = embeddings(0), embeddings(1), torch.arange(40)
    there, back = retrieval_recall(images, texts, ids), retrieval_recall(texts, images, ids)
    for k in RECALL_AT:
        assert there[f"image_to_text_recall@{k}"] == back[f"text_to_image_recall@{k}"]


def test_chunks_do_not_change_ranks():
    images, texts, ids = embeddings(0), embeddings(1), torch.arange(40) // 2
    for image_ids in (None, torch.arange(40) // 3):
        whole = retrieval_recall(images, texts, ids, image_ids)
        assert retrieval_recall(images, texts, ids, image_ids, chunk=7) == whole


def test_a_query_without_its_report_is_an_error():
    with pytest.raises(ValueError, match="no right candidate"):
        first_right(torch.zeros(2, 2), torch.tensor([[True, False], [False, False]]))


def test_an_image_with_several_reports_is_one_image():
    """Two reports an image, all found perfectly: copies of an image are no wrong candidates."""
    images = torch.eye(10).repeat_interleave(2, 0)
    angle = torch.tensor([0.1, 0.2]).repeat(10)[:, None]  # how far a report is from its image
    texts = angle.cos() * images + angle.sin() * images.roll(2, 0)
    recall = retrieval_recall(images, texts, torch.arange(20), torch.arange(20) // 2)
    assert set(recall.values()) == {1.0}
    apart = retrieval_recall(images, texts, torch.arange(20))
    assert apart["text_to_image_recall@1"] == 0, "the copy stands first"
    assert apart["image_to_text_recall@1"] == 0.5, "one of the two reports does"


def test_images_with_several_reports_against_a_loop():
    draw = torch.Generator().manual_seed(0)
    image_ids, report_ids = torch.randint(15, (2, 40), generator=draw)
    images, texts = embeddings(0)[image_ids], embeddings(1)[report_ids]
    held = set(zip(image_ids.tolist(), report_ids.tolist(), strict=True))
    scores = {i: {r: (embeddings(0)[i] @ embeddings(1)[r]).item() for _, r in held}
              for i, _ in held}  # fmt: skip
    recall = retrieval_recall(images, texts, report_ids, image_ids)
    for k in RECALL_AT:
        votes = {report: [] for _, report in held}
        for image, report in zip(image_ids.tolist(), report_ids.tolist(), strict=True):
            best = sorted(scores[image], key=lambda r: -scores[image][r])[:k]
            votes[report].append(any((image, r) in held for r in best))
        expected = sum(sum(each) / len(each) for each in votes.values()) / len(votes)
        assert recall[f"image_to_text_recall@{k}"] == pytest.approx(expected)
        found = [
            any((i, report) in held for i in sorted(scores, key=lambda i: -scores[i][report])[:k])
            for report in votes
        ]
        assert recall[f"text_to_image_recall@{k}"] == pytest.approx(sum(found) / len(found))


def test_chance_counts_all_reports_of_an_image():
    """Images 0 and 1 have reports 0 and 1; images 2 and 3 have the reports 2 and 3, 4 alone."""
    ids = torch.tensor([0, 1, 0, 1, 2, 3, 4]), torch.tensor([0, 0, 1, 1, 2, 2, 3])
    chance = chance_recall(*ids)
    assert chance["image_to_text_recall@1"] == pytest.approx((4 * 2 / 5 + 1 / 5) / 5)
    assert chance["text_to_image_recall@1"] == pytest.approx((2 / 4 + 2 / 4 + 3 * 1 / 4) / 5)
    draw = torch.Generator().manual_seed(0)
    noise = [embeddings_of(7, draw) for _ in range(2000)]
    images = [each[0][ids[1]] for each in noise]
    found = [
        retrieval_recall(image, texts[ids[0]], *ids)
        for image, (_, texts) in zip(images, noise, strict=True)
    ]
    for name in ("image_to_text_recall@1", "text_to_image_recall@1"):
        mean = sum(each[name] for each in found) / len(found)
        assert mean == pytest.approx(chance[name], abs=0.02), name


def embeddings_of(size, draw):
    return F.normalize(torch.randn(2, size, 64, generator=draw), dim=2)


def test_chance_is_what_random_orders_find():
    ids = torch.tensor([0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8])
    chance = chance_recall(ids)
    generator = torch.Generator().manual_seed(0)
    found, rounds = 0.0, 2000
    for _ in range(rounds):
        order = torch.rand(9, 12, generator=generator).argsort(1)[:, :5]
        found += (ids[order] == torch.arange(9)[:, None]).any(1).float().mean().item() / rounds
    assert chance["text_to_image_recall@5"] == pytest.approx(found, abs=0.01)
    assert chance["text_to_image_recall@1"] == pytest.approx((3 + 2 + 7) / 12 / 9)
    assert chance["image_to_text_recall@5"] == pytest.approx(5 / 9)
    assert chance["image_to_text_recall@10"] == 1
