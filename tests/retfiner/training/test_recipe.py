"""What is chosen for how much data."""

import dataclasses
from pathlib import Path

import pytest

from retfiner.config import RefineConfig
from retfiner.training.recipe import (
    PUBLISHED,
    Recipe,
    Sizes,
    choose_recipe,
    schedule_notes,
    settings_of,
)


def sizes(pairs=136, patients=30, validation_patients=4, processes=1):
    return Sizes(pairs, patients, validation_patients, processes)


def auto(given=None, **of):
    return choose_recipe("auto", given or {}, sizes(**of)).recipe


def test_published_is_the_same_for_any_amount_of_data():
    for pairs in (80, 100_000):
        assert choose_recipe("published", {}, sizes(pairs)).recipe == PUBLISHED
    assert dataclasses.asdict(PUBLISHED) | {"monitor": 0} == {
        "batch_size": 128, "max_epochs": 20, "lr": 1e-4, "vision_lr": 1e-4, "text_lr": 1e-4,
        "lr_schedule": "constant", "warmup_steps": 0, "itm_negatives": "hard", "monitor": 0,
        "patience": 3,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["auto", "published"])
def test_what_the_user_sets_stays(name):
    given = {"batch_size": 24, "vision_lr": 3e-6, "monitor": ["itc", "loss"], "max_epochs": 7}
    recipe = choose_recipe(name, given, sizes()).recipe
    assert {key: getattr(recipe, key) for key in given} == given


def test_the_learning_rate_of_new_layers_takes_those_of_pretrained_ones_along():
    assert choose_recipe("published", {"lr": 3e-4}, sizes()).recipe.vision_lr == 3e-4
    assert auto({"lr": 1e-3}).vision_lr == pytest.approx(10 * auto().vision_lr)


def test_few_pairs_make_small_batches_and_many_epochs():
    few = auto(pairs=80)
    assert few.batch_size == 16
    assert few.max_epochs * 5 >= 200
    assert auto(pairs=100_000).batch_size == 128
    assert auto(pairs=100_000).max_epochs == 20
    several = auto(pairs=512, processes=4)
    assert several.batch_size == 16  # each of four


def test_a_pretrained_encoder_learns_the_faster_the_more_pairs_there_are():
    rates = [auto(pairs=n).vision_lr for n in (80, 300, 3_000, 30_000, 10**6)]
    assert rates[0] == rates[1] < rates[2] < rates[3] == rates[4] == pytest.approx(1e-4)
    assert rates[2] == pytest.approx(10**-4.5)


def test_the_guard_decides_only_where_there_are_patients_enough():
    assert auto(validation_patients=30).monitor == ["guard"]
    for too_few in (29, None):
        assert auto(validation_patients=too_few).monitor == ["last"]


def test_three_lines_say_what_and_why():
    lines = choose_recipe("auto", {"lr": 2e-4}, sizes()).lines
    assert len(lines) == 3
    assert "136 pairs of 30 patients" in lines[0]
    assert "yours: lr" in lines[0]
    assert "16 pairs a batch" in lines[1]
    assert "4 validation patients cannot tell" in lines[2]


def test_every_setting_of_a_recipe_is_a_flag_without_a_value_of_its_own():
    config = RefineConfig(model_weights=Path("w.pth"), train_csv=Path("p.csv"))
    assert settings_of(config) == {}
    assert {field.name for field in dataclasses.fields(Recipe)} <= set(vars(config))
    given = RefineConfig(model_weights=Path("w"), train_csv=Path("p"), warmup_steps=0)
    assert settings_of(given) == {"warmup_steps": 0}


def test_a_course_that_surprises_is_said():
    recipe = dataclasses.replace(PUBLISHED, warmup_steps=100, lr_schedule="cosine")
    assert schedule_notes(recipe, 101) == []
    [note] = schedule_notes(recipe, 100)
    assert "never reached" in note
    [note] = schedule_notes(recipe, 1000, epochs_before=10)
    assert "after 10 epochs" in note
    assert schedule_notes(dataclasses.replace(recipe, lr_schedule="constant"), 1000, 10) == []
