"""A run's checkpoint gives back the model it was written from, whole and alone."""

import shutil

import pytest
import torch

from retfiner.common.errors import InputError
from retfiner.data.batch import identify_reports
from retfiner.export.loading import read_model
from retfiner.refine import refine
from retfiner.text.encoder import load_text_encoder
from retfiner.text.reading import Reading
from retfiner.text.tokenizer import load_tokenizer, tokenize
from retfiner.vision import load_backbone
from tests.helpers.refinement import make_material, model_of, report_of, settings
from tests.helpers.small import make_batch


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"), pairs=12, patients=6)


def batch_of(tokenizer, longest):
    reports = [report_of(index) for index in range(4)]
    tokens = tokenize(tokenizer, reports, longest)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return make_batch(images, *tokens, identify_reports(tokenizer, reports, longest))


@torch.no_grad()
def outputs(model, batch):
    encoded = model.encode(batch)
    reading = Reading(batch.input_ids, batch.attention_mask, batch.lengths)
    states = model.fuse(batch, encoded, [reading])[0]
    words = model.multimodal_encoder.predict_tokens(states)
    return encoded.similarity, words, model.itm_head(states[:, 0])


@pytest.mark.parametrize(
    "changes", [{}, {"lora_rank": 2}, {"exponential_temp": True}, {"contrast": "sigmoid"}]
)
def test_the_model_is_that_of_the_run(material, tmp_path, changes):
    config = settings(material, tmp_path, max_epochs=1, **changes)
    folder = refine(config).folder
    state = torch.load(folder / "best-model.ckpt", weights_only=True)["state_dict"]
    text = load_text_encoder(material.text_encoder)
    expected = model_of(config, load_backbone(material.weights), text).eval()
    expected.load_state_dict({key.removeprefix("model."): value for key, value in state.items()})

    moved = shutil.move(folder / "best-model.ckpt", tmp_path / "alone.ckpt")
    loaded = read_model(moved)
    assert not loaded.model.training
    assert loaded.max_text_tokens == 30
    batch = batch_of(loaded.tokenizer, 30)
    own = batch_of(load_tokenizer(material.text_encoder), 30)
    assert torch.equal(batch.input_ids, own.input_ids)
    assert loaded.model.mask_token_id == expected.mask_token_id
    tolerance = 1e-5 if changes.get("lora_rank") else 0.0
    for ours, theirs in zip(outputs(loaded.model, batch), outputs(expected, batch), strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def test_a_base_model_is_refused(material):
    with pytest.raises(InputError, match="holds no whole model"):
        read_model(material.weights)


def test_a_part_that_lacks_is_named(material, tmp_path):
    folder = refine(settings(material, tmp_path, max_epochs=1)).folder
    content = torch.load(folder / "best-model.ckpt", weights_only=True)
    del content["state_dict"]["model.itm_head.linear2.bias"]
    torch.save(content, folder / "best-model.ckpt")
    with pytest.raises(InputError, match=r"missing: itm_head\.linear2\.bias"):
        read_model(folder)
