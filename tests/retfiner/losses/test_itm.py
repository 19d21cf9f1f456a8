"""ITM: its hard negatives, and the loss against a loop written from its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from retfiner.losses.itm import ImageTextMatching, Negatives, draw_negatives
from retfiner.text.reading import Reading
from tests.helpers.small import random_batch, small_model


def sharing(ids):
    ids = torch.tensor(ids)
    return ids[:, None] == ids[None, :]


def naive(model, batch, negatives):
    """One pair at a time, each with an encoder pass of its own."""
    size = len(batch.images)
    pairs = [(b, b, 1) for b in range(size)]
    pairs += [(int(negatives.image_for_text[b]), b, 0) for b in range(size)]
    pairs += [(b, int(negatives.text_for_image[b]), 0) for b in range(size)]
    total = torch.zeros((), dtype=torch.float64)
    for image, text, label in pairs:
        tokens = model.encode_images(batch.images[image : image + 1])
        n = batch.lengths[text]  # without padding at all
        hidden = model.multimodal_encoder.bert(
            input_ids=batch.input_ids[text : text + 1, :n],
            attention_mask=torch.ones(1, 1, 1, n, dtype=torch.bool),
            encoder_hidden_states=tokens,
        ).last_hidden_state
        logits = model.itm_head(hidden[:, 0])
        total = total - F.log_softmax(logits, -1)[0, label]
    return total / len(pairs)


def test_equals_the_definition():
    model, batch = small_model(), random_batch()
    negatives = Negatives(
        torch.tensor([3, 0, 1, 5, 2, 4]),
        torch.tensor([1, 2, 4, 0, 5, 3]),
        torch.ones(6) > 0,
        torch.ones(6) > 0,
    )
    plan = ImageTextMatching.from_negatives(model, batch, negatives)
    ours = plan.carry_out(model, batch, model.encode(batch))
    assert ours.item() == pytest.approx(naive(model, batch, negatives).item(), abs=1e-10)


def test_negatives_follow_softmax_of_similarity():
    similarity = torch.tensor([[9.0, 1.0, 2.0, 0.0], [0.0, 9.0, 0.0, 0.0]] * 2)
    weights = similarity.softmax(1) + 1e-4
    weights.fill_diagonal_(0)
    expected = weights / weights.sum(1, keepdim=True)
    generator = torch.Generator().manual_seed(0)
    own, draws = torch.arange(4), 8_000
    drawn = [draw_negatives(similarity, own[:, None] == own, generator) for _ in range(draws)]
    shares = torch.stack([F.one_hot(d.text_for_image, 4) for d in drawn]).double().mean(0)
    # three standard errors of a share are at most 3 x 0.5 / sqrt(8,000) = 0.0168
    assert (shares - expected).abs().max() < 0.0168
    assert not shares.diagonal().any()


def test_no_wrong_pair_is_too_easy_to_be_drawn():
    """Softmax alone would leave the unlike ones nothing; 1e-4 each is what they get."""
    size, rounds = 200, 50
    similarity = torch.zeros(size, size)
    likeliest = (torch.arange(size) + 1) % size
    similarity[torch.arange(size), likeliest] = 50.0
    generator = torch.Generator().manual_seed(0)
    own = torch.eye(size, dtype=torch.bool)
    easy = sum(
        int((draw_negatives(similarity, own, generator).text_for_image != likeliest).sum())
        for _ in range(rounds)
    )
    share = 198e-4 / (1 + 199e-4)
    expected = size * rounds * share
    assert abs(easy - expected) < 4 * expected**0.5  # about 194, give or take 56


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_draws_stay_legal_where_scores_say_nothing_or_too_much(scale):
    ids = torch.tensor([0, 0, 1, 2, 3, 3])
    similarity = scale * torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        drawn = draw_negatives(similarity.half(), ids[:, None] == ids[None], generator)
        assert (ids[drawn.image_for_text] != ids).all()
        assert (ids[drawn.text_for_image] != ids).all()


def test_only_pairs_without_a_negative_are_left_out():
    """Negatives that do not exist count neither above nor below the fraction."""
    model, batch = small_model(), random_batch()
    has_image = torch.tensor([True, False, True, True, False, True])
    has_text = torch.tensor([True, True, False, True, False, True])
    own, shift = torch.arange(6), (torch.arange(6) + 1) % 6
    encoded = model.encode(batch)
    negatives = Negatives(shift, shift, has_image, has_text)
    plan = ImageTextMatching.from_negatives(model, batch, negatives)
    ours = plan.carry_out(model, batch, encoded)
    groups = [(own, own, 1, own >= 0), (shift, own, 0, has_image), (own, shift, 0, has_text)]
    losses = []
    for images, texts, label, counts in groups:
        reading = Reading(batch.input_ids[texts], batch.attention_mask[texts], image_index=images)
        fused = model.fuse(batch, encoded, [reading])[0]
        losses.append(-F.log_softmax(model.itm_head(fused[:, 0]), -1)[counts, label])
    assert len(torch.cat(losses)) == 6 + 4 + 4
    assert ours.item() == pytest.approx(torch.cat(losses).mean().item(), abs=1e-12)


def test_similarity_chooses_negatives_and_gets_no_gradient_of_it():
    model, batch = small_model(), random_batch()
    encoded = model.encode(batch)
    loss = ImageTextMatching()(model, batch, encoded, torch.Generator().manual_seed(0))
    loss.backward()
    assert model.contra_temp.grad is None and model.contra_head_v.linear.weight.grad is None
    assert model.vision_encoder.cls_token.grad.abs().sum() > 0


def test_texts_draw_images_by_the_columns():
    similarity = torch.zeros(9, 9)
    similarity[2, 0] = 50.0  # text 0 and image 2 are very similar
    own, generator = torch.eye(9, dtype=torch.bool), torch.Generator().manual_seed(0)
    drawn = [draw_negatives(similarity, own, generator) for _ in range(50)]
    assert sum(d.image_for_text[0] == 2 for d in drawn) >= 45
    assert sum(d.text_for_image[2] == 0 for d in drawn) >= 45
    assert sum(d.image_for_text[2] == 0 for d in drawn) <= 20, "text 2 has no such image"
    assert sum(d.text_for_image[0] == 2 for d in drawn) <= 20, "image 0 has no such text"


def test_pairs_with_the_same_report_are_never_negatives():
    ids = torch.tensor([0, 0, 1, 0, 2, 1])
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        drawn = draw_negatives(torch.zeros(6, 6), ids[:, None] == ids[None], generator)
        assert (ids[drawn.image_for_text] != ids).all()
        assert (ids[drawn.text_for_image] != ids).all()
        assert drawn.has_image.all() and drawn.has_text.all()


@pytest.mark.parametrize("how", ["shared", "similar"])
def test_pairs_of_the_same_image_are_never_negatives(how):
    batch = random_batch()._replace(image_ids=torch.tensor([0, 1, 0, 2, 3, 0]))
    model, images = small_model(duplicate_reports=how), batch.image_ids
    encoded, generator = model.encode(batch), torch.Generator().manual_seed(0)
    for _ in range(300):
        drawn = draw_negatives(encoded.similarity, encoded.relation.matches, generator)
        assert (images[drawn.image_for_text] != images).all()
        assert (images[drawn.text_for_image] != images).all()


def test_a_pair_that_the_batch_holds_is_never_a_wrong_one():
    """Image 1 has the reports 5 and 8, of which image 2 has the one and image 3 the other."""
    images, reports = torch.tensor([1, 1, 2, 3, 4, 4]), torch.tensor([5, 8, 5, 8, 7, 6])
    batch = random_batch()._replace(image_ids=images, report_ids=reports)
    encoded, generator = small_model().encode(batch), torch.Generator().manual_seed(0)
    held = set(zip(images.tolist(), reports.tolist(), strict=True))
    drawn = set()
    for _ in range(300):
        negatives = draw_negatives(
            torch.zeros(6, 6),
            encoded.relation.matches,
            generator,
            text_matches=encoded.text_relation.matches,
        )
        drawn |= set(zip(images[negatives.image_for_text].tolist(), reports.tolist(), strict=True))
        drawn |= set(zip(images.tolist(), reports[negatives.text_for_image].tolist(), strict=True))
    assert not drawn & held
    every = {(image, report) for image in (1, 2, 3, 4) for report in (5, 6, 7, 8)}
    assert drawn == every - held, "and all others are"


def test_an_image_that_has_every_report_has_no_wrong_one_but_they_have_images():
    """Of six pairs, four are of one image; the other two repeat two of its reports."""
    batch = random_batch()._replace(
        image_ids=torch.tensor([0, 0, 0, 0, 1, 2]), report_ids=torch.tensor([0, 1, 2, 3, 0, 1])
    )
    model, loss = small_model(), ImageTextMatching()
    encoded = model.encode(batch)
    wrong, true = loss.guesses(model, batch, torch.Generator()).tolist()
    # The images 1 and 2 have wrong reports; each of the reports is wrong for one of them at least.
    assert (wrong, true) == (2 + 6, 6)
    assert loss(model, batch, encoded, torch.Generator().manual_seed(0)).isfinite()


def test_reports_too_similar_are_never_negatives():
    batch = random_batch()
    ids = batch.input_ids.clone()
    ids[1], ids[1, 1:3] = ids[0], ids[0, 1:3].flip(0)  # the same words in another order
    batch = batch._replace(
        input_ids=ids, attention_mask=batch.attention_mask.index_copy(
            0, torch.tensor([1]), batch.attention_mask[:1]
        ), lengths=(batch.lengths[0], batch.lengths[0], *batch.lengths[2:]),
    )  # fmt: skip
    encoded = small_model(duplicate_reports="similar").encode(batch)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        drawn = draw_negatives(encoded.similarity, encoded.relation.matches, generator)
        assert drawn.text_for_image[0] != 1 and drawn.image_for_text[1] != 0


def test_pairs_without_any_negative_do_not_count():
    model = small_model()
    batch = random_batch()._replace(report_ids=torch.full((6,), 3))
    encoded = model.encode(batch)
    loss = ImageTextMatching()(model, batch, encoded, torch.Generator().manual_seed(0))
    fused = model.fuse(batch, encoded, [Reading(batch.input_ids, batch.attention_mask)])[0]
    only_true = F.cross_entropy(model.itm_head(fused[:, 0]), torch.ones(6, dtype=torch.long))
    assert loss.item() == pytest.approx(only_true.item(), abs=1e-12)


def test_same_generator_same_negatives():
    similarity, same = torch.randn(8, 8), torch.eye(8, dtype=torch.bool)
    first, second = (
        draw_negatives(similarity, same, torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first.image_for_text, second.image_for_text)
    assert torch.equal(first.text_for_image, second.text_for_image)


class Largest(TorchDispatchMode):
    """Note how many numbers the largest tensor holds."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // 4)
        return out


def test_memory_goes_by_the_own_pairs():
    """Of 4,096 pairs of all processes, this one has 4."""
    own, total = 4, 4096
    scores, matches = torch.zeros(own, total), torch.zeros(own, total, dtype=torch.bool)
    with Largest() as largest:
        draw_negatives(
            scores, matches, torch.Generator().manual_seed(0), scores, matches, first=100
        )
    assert own * total <= largest.numbers <= 4 * own * total  # a whole matrix: 1,024 times as many


def test_draws_are_the_same_however_many_processes_share_the_pairs():
    size = 12
    scores = torch.randn(size, size, generator=torch.Generator().manual_seed(5))
    own = torch.eye(size, dtype=torch.bool)
    whole = draw_negatives(scores, own, torch.Generator().manual_seed(3))
    for first, last in ((0, 5), (5, 12)):
        rows = slice(first, last)
        part = draw_negatives(
            scores[rows],
            own[rows],
            torch.Generator().manual_seed(3),
            scores.T[rows],
            own.T[rows],
            first,
        )
        assert all(a.equal(b[rows]) for a, b in zip(part, whole, strict=True))


def test_draws_are_alike_where_scores_are_alike():
    """Over rows and steps, each other pair is drawn equally often: chi-squared."""
    size, rounds = 10, 1_000
    generator, counts = torch.Generator().manual_seed(0), torch.zeros(size, size)
    scores, own = torch.zeros(size, size), torch.eye(size, dtype=torch.bool)
    for _ in range(rounds):
        drawn = draw_negatives(scores, own, generator)
        counts += F.one_hot(drawn.text_for_image, size) + F.one_hot(drawn.image_for_text, size)
    expected = 2 * rounds / (size - 1)
    off = counts[~own].reshape(size, size - 1)
    chi = ((off - expected) ** 2 / expected).sum(1)
    assert (chi < 29.7).all()  # 8 degrees of freedom: p = 0.0002 each
