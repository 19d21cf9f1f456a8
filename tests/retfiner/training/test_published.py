"""The published settings are flags of train.py, and make a run that can be trained."""

import dataclasses

import pytest

from retfiner.config import RefineConfig
from retfiner.training.published import PUBLISHED, published
from retfiner.vision import BACKBONES

DEFAULTS = RefineConfig(model_weights="w", train_csv="c")
DETAILS = {
    "fixed_temp": True,
    "duplicate_reports": "ignore",
    "random_token_from": 106,
    "redraw_masks": True,
    "train_interpolation": "bicubic",
    "drop_path": 0.1,
    "precision": "16-mixed",
}
"""What the released code does and our defaults do not."""


def test_every_name_is_a_flag():
    assert set(PUBLISHED) <= {field.name for field in dataclasses.fields(RefineConfig)}


def test_these_differ_from_the_defaults():
    differing = {k: v for k, v in PUBLISHED.items() if v != getattr(DEFAULTS, k)}
    assert differing.items() >= DETAILS.items()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_stochastic_depth_is_retfounds_alone(backbone):
    chosen = published(backbone, PUBLISHED["losses"], "cuda")
    assert chosen.get("drop_path") == (0.1 if backbone == "RETFound" else None)
    assert set(PUBLISHED) - set(chosen) <= {"drop_path"}


@pytest.mark.parametrize("losses", [["itc"], ["itm"], ["mlm", "gm"], ["itc", "itm", "mlm", "gm"]])
@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_what_has_no_effect_is_left_out(losses, accelerator):
    chosen = published("RETFound", losses, accelerator)
    RefineConfig(model_weights="w", train_csv="c", **chosen | {"losses": losses})
    assert ("precision" in chosen) == (accelerator == "cuda")
    assert ("fixed_temp" in chosen) == ("itc" in losses)
    assert ("redraw_masks" in chosen) == ("mlm" in losses)
