"""The probed model: which weights, and that refined ones belong to the base model."""

import hashlib

import pytest
import torch

from linprobe.weights import load_model
from retfiner.common.errors import InputError
from retfiner.vision import Backbone, load_backbone, save_backbone
from tests.helpers.refinement import write_base_model
from tests.helpers.small import small_backbone, small_vit


@pytest.fixture
def files(tmp_path):
    return write_base_model(tmp_path / "base.pth", 0), write_base_model(tmp_path / "refined.pth", 1)


def test_without_refined_weights_the_base_model_is_probed(files):
    probed = load_model(files[0], None)
    assert probed.sha256 == hashlib.sha256(files[0].read_bytes()).hexdigest()
    assert probed.context["weights"] == str(files[0])


def test_with_them_the_refined_model_is_probed(files):
    probed = load_model(*files)
    assert probed.sha256 == hashlib.sha256(files[1].read_bytes()).hexdigest()
    assert (
        probed.context["base_weights_sha256"] == hashlib.sha256(files[0].read_bytes()).hexdigest()
    )
    ours = probed.backbone.encoder.state_dict()
    expected = load_backbone(files[1]).encoder.state_dict()
    assert all(torch.equal(ours[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (small_backbone(name="UrFound"), "not a checkpoint of RETFound"),
        (small_backbone(width=64), r"not refined from a model like base\.pth(.|\n)*64"),
        (Backbone(small_backbone().spec, small_vit(depth=3), 32, 4), r"blocks\.2"),
        (Backbone(small_backbone().spec, small_vit(size=48), 48, 4), "image_size 48"),
    ],
)
def test_refined_weights_of_another_model_are_refused(files, tmp_path, other, message):
    path = tmp_path / "other.pth"
    save_backbone(path, other)
    with pytest.raises(InputError, match=message):
        load_model(files[0], path)


def test_what_refinement_found_travels_with_the_weights(files, tmp_path):
    backbone = load_backbone(files[1])
    guard = {"base": 0.3, "refined": 0.35, "low": 0.01, "high": 0.09, "patients": 40}
    backbone.provenance = {**backbone.provenance, "guard": guard, "notes": ["Few pairs."]}
    path = tmp_path / "told.pth"
    save_backbone(path, backbone)
    first, second = load_model(path, None).notes
    assert first == "Few pairs."
    assert "0.350, the base's 0.300 (interval of the change +0.010 to +0.090, 40" in second
    assert load_model(files[0], None).notes == []


def test_a_common_image_size_can_be_asked_for(files, tmp_path):
    path = tmp_path / "other.pth"
    save_backbone(path, Backbone(small_backbone().spec, small_vit(size=48), 48, 4))
    assert load_model(files[0], path, image_size=48).backbone.image_size == 48


def test_refined_weights_that_are_the_base_models_are_said(files, tmp_path):
    """The file itself, or other bytes with the same weights."""
    again = tmp_path / "again.pth"
    content = torch.load(files[0], weights_only=True)
    torch.save(content | {"epoch": 5}, again)
    for same in (files[0], again):
        assert any("very weights" in note for note in load_model(files[0], same).notes)
    assert not any("very weights" in note for note in load_model(*files).notes)
