"""What is chosen for how much data."""

import dataclasses
from pathlib import Path

import pytest

from retfiner.config import RefineConfig
from retfiner.training.recipe import (
    PUBLISHED,
    Basis,
    Recipe,
    choose_recipe,
    schedule_notes,
    settings_of,
)


def basis(**changes):
    values = {
        "backbone": "RETFound",
        "blocks": 12,
        "text_from_reports": False,
        "is_adapted": False,
        "pairs": 136,
        "patients": 30,
        "validation_patients": 4,
        "batches_per_step": 1,
    }
    return Basis(**(values | changes))


def auto(given=None, **of):
    return choose_recipe("auto", given or {}, basis(**of)).recipe


def test_published_is_the_same_for_any_amount_of_data():
    for pairs in (80, 100_000):
        assert choose_recipe("published", {}, basis(pairs=pairs)).recipe == PUBLISHED
    assert dataclasses.asdict(PUBLISHED) == {
        "batch_size": 128, "max_epochs": 20, "lr": 1e-4, "vision_lr": 1e-4, "text_lr": 1e-4,
        "unfreeze_last": None, "lora_rank": None, "lr_schedule": "constant", "warmup_steps": 0,
        "fusion_warmup_steps": 0,
        "itm_negatives": "hard", "monitor": ["loss"], "patience": 3, "fixed_temp": True,
        "duplicate_reports": "ignore", "random_token_from": 106, "redraw_masks": True,
        "train_interpolation": "bicubic", "drop_path": 0.1, "augment": False,
        "contrast_batch": None,
    }  # fmt: skip


def test_stochastic_depth_is_retfounds_alone():
    assert choose_recipe("published", {}, basis(backbone="UrFound")).recipe.drop_path == 0


def test_a_vocabulary_of_ones_own_has_five_special_tokens():
    chosen = choose_recipe("published", {}, basis(text_from_reports=True)).recipe
    assert chosen.random_token_from == 5


@pytest.mark.parametrize("name", ["auto", "published"])
def test_what_the_user_sets_stays(name):
    given = {"batch_size": 24, "vision_lr": 3e-6, "monitor": ["itc", "loss"], "max_epochs": 7}
    recipe = choose_recipe(name, given, basis()).recipe
    assert {key: getattr(recipe, key) for key in given} == given


def test_the_learning_rate_of_new_layers_takes_those_of_pretrained_ones_along():
    assert choose_recipe("published", {"lr": 3e-4}, basis()).recipe.vision_lr == 3e-4
    assert auto({"lr": 1e-2}).vision_lr == pytest.approx(10 * auto().vision_lr)


@pytest.mark.parametrize("name", ["auto", "published"])
def test_what_finds_nothing_to_act_on_is_off(name):
    """Without ITC, nothing else would train the encoder while fusion waits."""
    everything = choose_recipe(name, {}, basis()).recipe
    assert everything.fusion_warmup_steps == (45 if name == "auto" else 0)
    for losses in (["mlm", "gm"], ["itm"]):
        choice = choose_recipe(name, {}, basis(losses=losses))
        assert (choice.recipe.fusion_warmup_steps, choice.recipe.fixed_temp) == (0, False)
        assert "by ITC alone" not in " ".join(choice.lines)
    alone = choose_recipe(name, {}, basis(losses=["itc"]))
    assert alone.recipe.fusion_warmup_steps == 0
    assert "by ITC alone" not in " ".join(alone.lines)
    chosen = choose_recipe(name, {}, basis(losses=["itc", "itm"])).recipe
    assert (chosen.random_token_from, chosen.redraw_masks) == (0, False)
    assert chosen.fusion_warmup_steps == everything.fusion_warmup_steps


def test_who_says_how_the_temperature_is_learned_gets_it_learned():
    assert choose_recipe("published", {}, basis()).recipe.fixed_temp
    assert not choose_recipe("published", {}, basis(learns_temperature=True)).recipe.fixed_temp


@pytest.mark.parametrize("frozen", [{"vision_lr": 0.0}, {"unfreeze_last": 0}])
def test_a_frozen_encoder_has_no_stochastic_depth(frozen):
    assert choose_recipe("published", {}, basis()).recipe.drop_path == 0.1
    assert choose_recipe("published", frozen, basis()).recipe.drop_path == 0
    assert choose_recipe("published", frozen | {"drop_path": 0.2}, basis()).recipe.drop_path == 0.2
    lines = choose_recipe("auto", frozen, basis()).lines
    assert "steps; the encoder is frozen;" in lines[1], "neither at a rate, nor the last 0 blocks"
    few = auto(frozen, pairs=80)
    assert (few.lora_rank, few.unfreeze_last or 0) == (None, 0)


CHANGES = [
    {},
    {"losses": ["itc"]},
    {"losses": ["itm"]},
    {"losses": ["mlm", "gm"]},
    {"losses": ["itm", "mlm", "gm"]},
    {"loss_weights": [0.0, 1.0, 1.0, 1.0]},
    {"exponential_temp": True},
    {"contrast": "sigmoid"},
    {"vision_lr": 0.0},
    {"vision_lr": 1e-5},
    {"unfreeze_last": 0},
    {"layer_decay": 0.75},
    {"lora_rank": 4, "lora_alpha": 4},
    {"contrast_batch": 64},
    {"patience": 3},
]


@pytest.mark.parametrize("name", ["auto", "published"])
@pytest.mark.parametrize("pairs", [80, 5_000, 10**6])
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_settings_of_a_run_can_be_given_back_and_choose_the_same(name, pairs, changes):
    """As its config.yaml has them, which a stopped run names to go on with."""

    def chosen_by(config):
        of = basis(
            pairs=pairs,
            is_adapted=config.layer_decay != 1,
            losses=[loss for loss, weight in config.weights.items() if weight],
            learns_temperature=config.exponential_temp or config.contrast == "sigmoid",
        )
        return choose_recipe(config.recipe, settings_of(config), of).recipe

    words = {"model_weights": Path("w"), "train_csv": Path("p"), "recipe": name} | changes
    config = RefineConfig(**words)
    recipe = chosen_by(config)
    again = RefineConfig(**(dataclasses.asdict(config) | dataclasses.asdict(recipe)))
    assert chosen_by(again) == recipe


def test_few_pairs_make_small_batches_and_enough_steps():
    few = auto(pairs=80)
    assert (few.batch_size, few.max_epochs) == (16, 18)  # five steps an epoch, ninety in all
    assert (auto(pairs=900).batch_size, auto(pairs=900).max_epochs) == (32, 8)
    assert (auto(pairs=100_000).batch_size, auto(pairs=100_000).max_epochs) == (128, 20)
    assert auto(pairs=2_048, batches_per_step=4).batch_size == 32  # each of four


def test_a_larger_contrast_makes_fewer_steps_and_chunks_no_larger_than_it():
    recipe = auto({"contrast_batch": 8})
    assert (recipe.batch_size, recipe.pairs_per_batch) == (8, 8)
    recipe = auto({"contrast_batch": 64}, pairs=640)
    assert (recipe.batch_size, recipe.pairs_per_batch, recipe.max_epochs) == (32, 64, 9)


def test_fusion_waits_for_half_of_a_short_run_and_a_tenth_of_a_long_one():
    assert auto(pairs=80).fusion_warmup_steps == 45
    assert auto({"max_epochs": 4}, pairs=80).fusion_warmup_steps == 10
    assert auto(pairs=12_800).fusion_warmup_steps == 200
    assert auto(pairs=10**6).fusion_warmup_steps == 500


def test_with_few_pairs_low_rank_updates_train_and_bert_stays():
    few = auto(pairs=999)
    assert (few.lora_rank, few.unfreeze_last, few.text_lr) == (8, None, 0.0)
    many, adapted = auto(pairs=1_000), auto(pairs=80, is_adapted=True)
    for other in (many, adapted):
        assert (other.lora_rank, other.unfreeze_last) == (None, None)
    assert auto(pairs=80, text_from_reports=True).text_lr == pytest.approx(1e-3)


def test_who_chooses_what_trains_gets_that_alone():
    assert auto({"unfreeze_last": 2}, pairs=80).lora_rank is None
    assert auto({"lora_rank": 4}, pairs=80).unfreeze_last is None
    own_rate = auto({"vision_lr": 1e-5}, pairs=80)  # low-rank updates have none of the weights'
    assert (own_rate.lora_rank, own_rate.unfreeze_last) == (None, 4)


def test_from_thirty_thousand_pairs_on_images_and_negatives_are_as_published():
    few, many = auto(pairs=29_999), auto(pairs=30_000)
    assert (few.augment, few.itm_negatives) == (True, "uniform")
    assert (many.augment, many.itm_negatives) == (False, "hard")


def test_rates_go_to_the_published_one_with_the_number_of_pairs():
    new = [auto(pairs=n).lr for n in (1_000, 30_000**0.5 * 1_000**0.5, 30_000, 10**6)]
    assert new == pytest.approx([1e-3, 10**-3.5, 1e-4, 1e-4])
    pretrained = [auto(pairs=n).vision_lr for n in (1_000, 30_000, 10**6)]
    assert pretrained == pytest.approx([1e-4, 1e-4, 1e-4])
    assert auto(pairs=30_000).text_lr == pytest.approx(1e-4)


def test_the_guard_decides_only_where_there_are_patients_enough():
    assert auto(validation_patients=30).monitor == ["guard"]
    for too_few in (29, None):
        assert auto(validation_patients=too_few).monitor == ["last"]


def test_three_lines_say_what_and_why():
    lines = choose_recipe("auto", {"lr": 2e-4}, basis()).lines
    assert len(lines) == 3
    assert "136 pairs of 30 patients" in lines[0]
    assert "yours: lr" in lines[0]
    assert "updates of rank 8 of the encoder train at 0.0002" in lines[1]
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
