"""A setting that changes nothing is said to, and one that does is not."""

from pathlib import Path

import pytest

from retfiner.common.cli import as_plain, changed_settings
from retfiner.config import RefineConfig
from retfiner.training.no_effect import no_effect_notes
from retfiner.training.recipe import Basis, choose_recipe, settings_of


def notes(**changes):
    pairs = {} if "dataset" in changes else {"train_csv": Path("p")}
    config = RefineConfig(model_weights=Path("w"), **pairs, **changes)
    given = settings_of(config)
    basis = Basis("RETFound", 12, False, False, 200, 80, 8, 1, config.losses)
    settings = as_plain(config) | as_plain(choose_recipe(config.recipe, given, basis).recipe)
    return no_effect_notes(settings, changed_settings(config)), settings


@pytest.mark.parametrize(
    ("idle", "acting", "why"),
    [
        ({"contra_temp": 0.2, "losses": ["gm"]}, {"losses": ["itm"]}, "without itc and itm"),
        ({"exponential_temp": True, "losses": ["itm"]}, {"losses": ["itc"]}, "itc alone"),
        ({"itm_negatives": "hard", "losses": ["itc"]}, {"losses": ["itm"]}, "itm alone"),
        ({"duplicate_reports": "similar", "losses": ["mlm"]}, {"losses": ["itc"]}, "compared"),
        ({"fusion_warmup_steps": 5, "losses": ["itc"]}, {"losses": ["itc", "gm"]}, "beside itc"),
        ({"vision_lr": 1e-4, "lora_rank": 4}, {"lora_rank": None}, "train at --lr"),
        ({"vision_lr": 1e-4, "unfreeze_last": 0}, {"unfreeze_last": 2}, "frozen"),
        ({"patience": 3}, {"monitor": ["loss"]}, "--monitor loss"),
        ({"patience": 3, "monitor": ["last", "loss"]}, {"monitor": ["loss", "last"]}, "last epoch"),
        ({"val_fraction": 0.2, "val_csv": Path("v")}, {"val_csv": None}, "--val_csv"),
        ({"worker_start": "spawn", "num_workers": 0}, {"num_workers": 2}, "none starts"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_changes_nothing_is_said(idle, acting, why):
    [note], _ = notes(**idle)
    name = next(iter(idle))
    assert note.startswith(f"note: --{name} ") and "has no effect" in note and why in note
    assert notes(**(idle | acting))[0] == []


@pytest.mark.parametrize("recipe", ["auto", "published"])
@pytest.mark.parametrize("losses", [["itc"], ["itm"], ["mlm", "gm"], ["itc", "itm", "mlm", "gm"]])
def test_what_a_recipe_chose_is_nobodys_setting(recipe, losses):
    """Nor is it where its config.yaml is given back."""
    found, settings = notes(recipe=recipe, losses=losses)
    assert found == []
    config = RefineConfig(**(settings | {"model_weights": Path("w"), "train_csv": Path("p")}))
    assert no_effect_notes(as_plain(config), changed_settings(config)) == []


def test_what_switches_off_is_no_setting():
    assert notes(fusion_warmup_steps=0, losses=["itc"])[0] == []
    assert notes(vision_lr=0.0, unfreeze_last=0)[0] == []


@pytest.mark.parametrize("arguments", ["split", "transform"])
def test_a_class_that_makes_its_own_parts_takes_no_share_for_validation(tmp_path, arguments):
    file = tmp_path / "own.py"
    file.write_text(f"class Own:\n    def __init__(self, {arguments}): ...\n")
    found, _ = notes(dataset=f"{file}:Own", val_fraction=0.2)
    assert ["makes its own parts" in note for note in found] == [True] * (arguments == "split")
