"""What tells whether an objective learns."""

import math

import pytest
import torch

from retfiner.losses import LOSSES, build_losses
from retfiner.training.verdict import Objective, deal_anew, entropy, read_objectives
from tests.helpers.small import random_batch, small_model


@pytest.mark.parametrize(
    ("value", "chance", "shuffled", "verdict"),
    [
        (0.636, 0.6365, 0.637, "at chance"),
        (0.50, 0.6365, 1.2, "learns"),
        (1.2, 4.0, 1.21, "does not use the image"),
        (1.2, 4.0, 1.5, "learns"),
        (3.05, 2.66, 4.26, "learns"),  # surer than it is right, and yet by the image
        (3.05, 2.66, 3.06, "at chance"),
        (1.849, 1.792, 1.888, "at chance"),  # of seven pairs
    ],
)
def test_verdicts(value, chance, shuffled, verdict):
    assert Objective(value, chance, shuffled).verdict == verdict


def test_objectives_are_read_where_all_three_figures_are():
    row = {"val/itc": 1.0, "chance/itc": 2.0, "shuffled/itc": 3.0, "val/gm": 1.0, "chance/gm": 2.0}
    assert read_objectives(row | {"shuffled/gm": math.nan}) == {"itc": Objective(1.0, 2.0, 3.0)}


def test_entropy_is_what_guessing_by_frequency_costs():
    counts = torch.tensor([6.0, 0.0, 3.0, 3.0])
    expected = -(0.5 * math.log(0.5) + 2 * 0.25 * math.log(0.25))
    assert entropy(counts) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ids", [[1, 2, 3, 4], [1, 1, 2, 2], [1, 1, 1, 2, 3], [5, 5], [5]])
def test_images_dealt_anew_keep_as_few_reports_as_can_be(ids):
    ids = torch.tensor(ids)
    order = deal_anew(ids, torch.arange(len(ids)))
    assert sorted(order.tolist()) == list(range(len(ids)))
    kept = int((ids[order] == ids).sum())
    rotations = [int((ids.roll(-shift) == ids).sum()) for shift in range(1, len(ids))]
    assert kept == min(rotations, default=len(ids))


def test_images_dealt_anew_are_not_their_own_copies():
    order = deal_anew(torch.arange(4), torch.tensor([1, 2, 1, 2]))
    assert order.tolist() in ([1, 2, 3, 0], [3, 0, 1, 2]), "a rotation by two would change nothing"


def guessed(name, batch, **options):
    model = small_model(**options)
    loss = build_losses([name], model.contrast)[name]
    draws = torch.Generator().manual_seed(0)
    return entropy(loss.guesses(model, batch, draws))


def test_equal_scores_cost_what_guessing_is_said_to_cost():
    """The losses themselves, of a model that tells nothing apart."""
    batch = random_batch(6)._replace(report_ids=torch.tensor([0, 0, 1, 2, 3, 4]))
    same = batch.report_ids[:, None] == batch.report_ids
    itc = LOSSES["itc"]().from_similarity(torch.zeros(6, 6), same)
    assert guessed("itc", batch) == pytest.approx(itc.item(), abs=1e-6) == math.log(6)
    assert guessed("itm", batch) == pytest.approx(-(math.log(1 / 3) + 2 * math.log(2 / 3)) / 3)
    one_report = batch._replace(report_ids=torch.zeros(6, dtype=torch.long))
    assert guessed("itm", one_report) == 0.0
    ignored = guessed("itm", one_report, duplicate_reports="ignore")
    assert ignored == pytest.approx(-(math.log(1 / 3) + 2 * math.log(2 / 3)) / 3)


def test_guessing_in_a_sigmoid_contrast_costs_the_entropy_of_each_question():
    """8 of 36 pairs are right; a model that gives each of them 8 / 36 is asked six times an image.

    No constant costs less: those beside it cost more.
    """
    batch = random_batch(6)._replace(report_ids=torch.tensor([0, 0, 1, 2, 3, 4]))
    costs = []
    for right in (7 / 36, 8 / 36, 9 / 36):
        model = small_model(contrast="sigmoid")
        encoded = model.encode(batch)._replace(similarity=torch.zeros(6, 6).double())
        with torch.no_grad():
            model.contra_bias.fill_(math.log(right / (1 - right)))
        loss = build_losses(["itc"], "sigmoid")["itc"]
        costs.append(loss(model, batch, encoded, torch.Generator()).item())
    assert guessed("itc", batch, contrast="sigmoid") == pytest.approx(costs[1], abs=1e-12)
    assert costs[1] < min(costs[0], costs[2])


@pytest.mark.parametrize("name", ["mlm", "gm"])
def test_words_are_counted_where_the_loss_hides_them(name):
    batch, model, loss = random_batch(6), small_model(), LOSSES[name]()
    counts = loss.guesses(model, batch, torch.Generator().manual_seed(3))
    again = loss.guesses(model, batch, torch.Generator().manual_seed(3))
    assert torch.equal(counts, again)
    assert len(counts) == model.vocab_size
    words = batch.input_ids[batch.attention_mask.bool()]
    assert (counts <= torch.bincount(words, minlength=model.vocab_size)).all()
    assert counts.sum() >= 6, "at least one a report"
