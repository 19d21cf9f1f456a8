"""Settings: published defaults, and no flag without effect."""

from dataclasses import asdict
from pathlib import Path

import pytest

from linprobe.config import ProbeConfig
from retfiner.common.cli import parse
from retfiner.common.errors import InputError
from retfiner.vision import Augmentation


def config(**changes):
    return ProbeConfig(init_weights=Path("base.pth"), **changes)


def words(*arguments):
    return parse(ProbeConfig, "", ["--init_weights", "base.pth", *arguments])


def test_defaults_are_the_published_protocol():
    assert config().probe_settings("UrFound") == {
        "learning_rate": 1e-3,
        "min_learning_rate": 1e-8,
        "weight_decay": 0.01,
        "label_smoothing": 0.1,
        "warmup_epochs": 10,
        "epochs": 1000,
        "patience": 20,
        "patience_start": 20,
        "min_delta": 1e-3,
        "init_std": 2e-5,
        "views": "auto",
        "online_augmentation": False,
    }
    assert config().seeds == [0, 1, 2, 3, 4]
    assert config(shots=[1]).seeds == list(range(20))
    assert config(shots=[1], seed=[0, 1, 2, 3, 4]).seeds == [0, 1, 2, 3, 4]
    assert asdict(Augmentation()) == {
        "flip": 0.5, "intensity": 0.2, "affine": 0.9, "rotation": 10.0, "translation": 0.1,
        "scale": 0.1, "shear": 5.0,
    }  # fmt: skip


def test_one_weight_decay_for_all_unless_the_published_ones_are_asked_for():
    names = ("RETFound", "VisionFM", "UrFound", "MIRAGE")
    assert {config().decay_of(name) for name in names} == {0.01}
    assert {config(weight_decay=0.0).decay_of(name) for name in names} == {0.0}
    published = config(protocol="published")
    assert [published.decay_of(name) for name in names] == [0.05, 0.01, 0.01, 0.01]
    assert published.probe_settings("RETFound")["weight_decay"] == 0.05


def test_a_later_flag_wins_also_where_it_takes_several_values():
    chosen = words("--data_set", "A", "B", "--seed", "7", "--data_set", "C", "--seed", "1", "2")
    assert (chosen.data_set, chosen.seed) == (["C"], [1, 2])
    assert words("--model", "A", "--model", "B").model == "B"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"probe": "knn", "learning_rate": 1e-2}, "--learning_rate"),
        ({"probe": "logistic", "neighbours": 5}, "--neighbours"),
        ({"logistic_c": [1.0]}, "--logistic_c"),
        ({"probe": "knn", "views": 2}, "--views"),
        ({"probe": "knn", "online_augmentation": True}, "--online_augmentation"),
        ({"probe": "knn", "protocol": "published"}, "--probe knn"),
        ({"protocol": "published", "weight_decay": 0.1}, "--weight_decay"),
        ({"online_augmentation": True, "views": 4}, "--views"),
        ({"warmup_epochs": 10, "epochs": 10}, "--warmup_epochs"),
        ({"label_smoothing": 1.0}, "--label_smoothing"),
        ({"train_fraction": [0.5, 1.5]}, "--train_fraction"),
        ({"weights": ["a=b.pth"]}, "--init_weights would have no effect"),
        ({"seed": [1, 1]}, "--seed"),
        ({"data_set": ["A", "A"]}, "--data_set"),
        ({"probe": "mil"}, "--unit image"),
        ({"probe": "mil", "unit": "eye", "shots": [1]}, "whole units"),
        ({"probe": "attentive", "representation_method": "cls_token"}, "patch tokens"),
        ({"probe": "mil", "unit": "eye", "prototype_temperature": 1.0}, "--prototype_temp"),
        ({"attention_epochs": 5}, "--attention_epochs"),
        ({"shots": [1], "train_fraction": [0.5]}, "--shots and --train_fraction"),
        ({"data_set": ["A"], "external": ["A"]}, "external to itself"),
        ({"label_map": ["A=B"]}, "without --external"),
        ({"external": ["C"], "label_map": ["A"]}, "theirs=ours"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_by_name(changes, named):
    with pytest.raises(InputError, match=named):
        config(**changes)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], "Which model"),
        (["a.pth"], "name=checkpoint"),
        (["a=", "b=c"], "name=checkpoint"),
        (["a=1", "a=2"], "one name"),
    ],
)
def test_models_by_name(given, named):
    with pytest.raises(InputError, match=named):
        ProbeConfig(weights=given)


def test_unknown_flags_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        words("--lr", "0.1")
    assert stop.value.code == 2
    assert "--lr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({}, {"batch_size"}),
        ({"online_augmentation": True}, {"views", "batch_size"}),
    ],
)
def test_only_what_had_an_effect_is_recorded(changes, absent):
    settings = config(**changes).probe_settings("MAE")
    assert not absent & settings.keys()
    assert config(probe="knn").probe_settings("MAE") == {"neighbours": 20, "knn_temperature": 0.07}


def test_number_of_views():
    assert config().n_views(1000) == 8
    assert config(views=3).n_views(1000) == 3
    assert config(views=0).n_views(1000) == 0
