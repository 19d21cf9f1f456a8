"""From settings to a model, and what a checkpoint says about itself."""

import hashlib
import json

import pytest
import torch

from retfiner.common.cli import as_plain
from retfiner.common.errors import InputError
from retfiner.text.encoder import load_text_encoder
from retfiner.text.tokenizer import load_tokenizer
from retfiner.training.build import as_plain_json, describe
from tests.helpers.refinement import HEADS, WIDTH, make_material, model_of, settings
from tests.helpers.small import small_backbone, small_bert


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"), pairs=2)


def build(material, folder, backbone=None, **changes):
    config = settings(material, folder, **changes)
    text = load_text_encoder(config.text_encoder)
    return model_of(config, backbone or small_backbone(WIDTH), text)


@pytest.mark.parametrize(
    ("losses", "heads"),
    [
        (["itc"], {"contra_head_t", "contra_head_v", "contra_temp"}),
        (["itm"], {"contra_head_t", "contra_head_v", "contra_temp", "itm_head"}),
        (["mlm"], set()),
        (["gm", "mlm"], set()),
        (["gm", "itm"], {"contra_head_t", "contra_head_v", "contra_temp", "itm_head"}),
    ],
)
def test_only_what_an_active_loss_needs_is_built(material, tmp_path, losses, heads):
    model = build(material, tmp_path, losses=losses)
    found = {key.split(".")[0] for key in model.state_dict()}
    assert found - {"backbone"} - {"vision_encoder", "vision_proj", "multimodal_encoder"} == heads


def test_settings_reach_the_model(material, tmp_path):
    model = build(
        material, tmp_path, contra_temp=0.5, duplicate_reports="ignore", random_token_from=5,
        redraw_masks=True, drop_path=0.2, fixed_temp=True,
    )  # fmt: skip
    assert (model.random_token_from, model.redraw_masks) == (5, True)
    assert not model.contra_temp.requires_grad
    assert model.backbone.blocks[-1].drop_path1.drop_prob == pytest.approx(0.2)
    assert model.temperature.item() == 0.5
    assert model.duplicate_reports == "ignore"
    assert model.mask_token_id == load_tokenizer(material.text_encoder).mask_token_id
    assert model.contra_head_v.linear.weight.shape == (512, 32)


def test_random_tokens_must_be_of_the_vocabulary(material, tmp_path):
    size = len(load_tokenizer(material.text_encoder))
    build(material, tmp_path, random_token_from=size - 1)
    with pytest.raises(InputError, match=rf"no token to draw[\s\S]*below {size}"):
        build(material, tmp_path, random_token_from=size)


def test_a_published_projection_is_gone_on_with(material, tmp_path):
    backbone = small_backbone(WIDTH)
    backbone.projection = {"weight": torch.full((32, WIDTH), 0.3), "bias": torch.full((32,), 0.1)}
    model = build(material, tmp_path, backbone)
    assert model.vision_proj.weight.eq(0.3).all()
    assert model.vision_proj.bias.eq(0.1).all()


def test_a_projection_of_another_width_is_refused(material, tmp_path):
    backbone = small_backbone(WIDTH)
    backbone.projection = {"weight": torch.zeros(24, WIDTH), "bias": torch.zeros(24)}
    with pytest.raises(InputError, match=r"does not fit the text encoder.*\n.*24.*\n.*32"):
        build(material, tmp_path, backbone)


def test_a_description_is_plain_and_complete(material, tmp_path):
    config = settings(material, tmp_path, losses=["itc", "gm"], loss_weights=[0.5, 1.0])
    about_run = {
        "settings": as_plain(config),
        "given": ["lr", "batch_size"],
        "data": {"train_pairs": 3, "validation_pairs": 2, "data_sha256": "0"},
    }
    tokenizer = load_tokenizer(material.text_encoder)
    about = describe(small_backbone(WIDTH, heads=HEADS), small_bert(), tokenizer, **about_run)
    assert json.loads(json.dumps(about)) == about
    assert (about["backbone"], about["image_size"], about["num_heads"]) == ("RETFound", 32, HEADS)
    assert about["mean"] == [0.485, 0.456, 0.406]
    assert about["provenance"]["base_weights_file"] == material.weights.name
    expected = hashlib.sha256(material.weights.read_bytes()).hexdigest()
    assert about["provenance"]["base_weights_sha256"] == expected
    assert about["provenance"]["losses"] == "itc x 0.5, gm x 1"
    assert about["settings"]["val_fraction"] == 0.34
    assert about["given"] == ["batch_size", "lr"]
    other = describe(small_backbone(WIDTH), small_bert(), tokenizer, **about_run)
    assert other["provenance"]["run_id"] != about["provenance"]["run_id"]


def test_only_plain_values_are_kept():
    assert as_plain_json({"a": 1, "b": None, "c": torch.float32, "d": [1], "e": "x"}) == {
        "a": 1, "b": None, "e": "x",
    }  # fmt: skip
