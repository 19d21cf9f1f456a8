"""What AdamW is told."""

import math

import pytest

from retfiner.training.optim import lr_factor, parameter_groups
from retfiner.vision.adaptation import add_lora
from tests.helpers.small import small_model


def test_a_warm_up_rises_to_the_learning_rate_and_its_first_step_counts():
    factors = [lr_factor(step, 100, "constant", 4) for step in range(6)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert lr_factor(99, 100, "constant", 4) == 1.0


def test_a_cosine_falls_to_nothing_at_the_end():
    assert lr_factor(10, 110, "cosine", 10) == 1.0
    assert lr_factor(60, 110, "cosine", 10) == pytest.approx(0.5)
    assert lr_factor(35, 110, "cosine", 10) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert lr_factor(110, 110, "cosine", 10) == pytest.approx(0.0)


def by_name(groups):
    return {group["name"]: group for group in groups}


def names_in(model, group):
    wanted = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in wanted}


def test_what_is_pretrained_has_a_learning_rate_of_its_own():
    model = small_model()
    groups = by_name(parameter_groups(model, 1e-3, vision_lr=1e-4, text_lr=1e-5))
    rates = {name: group["lr"] for name, group in groups.items()}
    assert rates == {"new": 1e-3, "temperature": 1e-3, "text": 1e-5, "vision": 1e-4}
    found = {name: names_in(model, group) for name, group in groups.items()}
    assert all(name.startswith("vision_encoder.") for name in found["vision"])
    assert all(name.startswith("multimodal_encoder.") for name in found["text"])
    assert not any(".crossattention." in name for name in found["text"])
    heads = {"vision_proj.weight", "contra_head_v.linear.weight", "itm_head.linear1.weight"}
    assert heads <= found["new"]
    assert found["temperature"] == {"contra_temp"}
    assert sum(len(group["params"]) for group in groups.values()) == len(list(model.parameters()))
    assert [n for n, group in groups.items() if group.get("weight_decay") == 0] == ["temperature"]


def test_the_bias_of_a_sigmoid_contrast_does_not_decay_either():
    model = small_model(contrast="sigmoid")
    groups = by_name(parameter_groups(model, 1e-3))
    assert names_in(model, groups["temperature"]) == {"contra_temp", "contra_bias"}


def test_low_rank_updates_are_new():
    model = small_model()
    add_lora(model.vision_encoder, 2, 2.0)
    groups = by_name(parameter_groups(model, 1e-3, vision_lr=1e-5))
    assert "vision" not in groups
    assert any(".lora_A." in name for name in names_in(model, groups["new"]))


def test_layers_decay_from_the_vision_encoders_rate():
    groups = by_name(parameter_groups(small_model(), 1e-3, vision_lr=1e-4, layer_decay=0.5))
    rates = [group["lr"] for name, group in groups.items() if name.startswith("vision")]
    assert rates == pytest.approx([2.5e-5, 5e-5, 1e-4])
