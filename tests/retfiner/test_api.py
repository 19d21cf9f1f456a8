"""The Python API gives what the model gives, whatever form images come in."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from retfiner import RefinedModel, load_model
from retfiner.common.errors import InputError
from retfiner.common.seeds import generator
from retfiner.export.loading import read_model
from retfiner.refine import refine
from retfiner.text.generation import Decoding, special_tokens, write_reports
from retfiner.text.reading import Reading
from retfiner.text.tokenizer import tokenize
from retfiner.vision import evaluation_transform, read_image
from tests.helpers.refinement import make_material, report_of, settings
from tests.helpers.small import make_batch

REPORTS = [report_of(index) for index in range(5)]


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"), pairs=12, patients=6)


@pytest.fixture(scope="module")
def run(material, tmp_path_factory):
    return refine(settings(material, tmp_path_factory.mktemp("runs"), max_epochs=1)).folder


@pytest.fixture(scope="module")
def model(run):
    return load_model(run, device="cpu")


@pytest.fixture(scope="module")
def paths(material):
    return sorted((material.csv.parent / "images").iterdir())[:5]


@pytest.fixture(scope="module")
@torch.no_grad()
def by_hand(run, paths):
    """Embeddings and match probabilities of five pairs by the model itself, in one batch."""
    loaded = read_model(run)
    model, transform = loaded.model, evaluation_transform(loaded.model.backbone)
    images = torch.stack([transform(read_image(path)) for path in paths])
    tokens = tokenize(loaded.tokenizer, REPORTS, loaded.max_text_tokens)
    batch = make_batch(images, *tokens)
    encoded = model.encode(batch)
    states = model.fuse(batch, encoded, [Reading(batch.input_ids, batch.attention_mask)])[0]
    match = model.itm_head(states[:, 0]).softmax(1)[:, 1]
    features = model.backbone.features(images)
    embedded = (encoded.image_embedding, encoded.text_embedding)
    return tuple(part.numpy() for part in (*embedded, match, features))


def same(found, expected):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("batch_size", [2, 32])
def test_numbers_are_the_models(run, paths, by_hand, batch_size):
    model = RefinedModel(read_model(run), batch_size)
    images, texts, match, features = by_hand
    same(model.encode_images(paths), images)
    same(model.encode_texts(REPORTS), texts)
    same(model.similarity(paths, REPORTS), images @ texts.T)
    same(model.match(paths, REPORTS), match)
    same(model.features(paths), features)
    np.testing.assert_allclose(np.linalg.norm(model.encode_images(paths), axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("decode", ["greedy", "beam", "nucleus"])
@torch.no_grad()
def test_reports_are_the_generators(run, paths, decode):
    loaded = read_model(run)
    transform = evaluation_transform(loaded.model.backbone)
    images = torch.stack([transform(read_image(path)) for path in paths])
    text = loaded.model.multimodal_encoder
    written = write_reports(
        text,
        text.project_image(loaded.model.encode_images(images)),
        special_tokens(loaded.tokenizer),
        loaded.max_text_tokens,
        Decoding(decode, beams=3, top_p=0.8),
        [generator(7, "generate", place) for place in range(5)],
    )
    expected = [loaded.tokenizer.decode(tokens) for tokens in written.tokens]
    found = RefinedModel(loaded, batch_size=2).generate(paths, decode, beams=3, top_p=0.8, seed=7)
    assert found == expected and any(found)
    assert not any("[" in report for report in found), "no special tokens"


def test_drawn_reports_follow_the_seed(model, paths):
    drawn = [model.generate(paths, "nucleus", top_p=1, seed=seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("wrong", [{"decode": "best"}, {"beams": 0}, {"top_p": 0}, {"top_p": 1.5}])
def test_what_is_no_way_to_write_is_refused(model, paths, wrong):
    with pytest.raises(InputError, match="got:"):
        model.generate(paths[0], **wrong)


def test_one_stands_for_all(model, paths, by_hand):
    same(model.match(paths[0], REPORTS)[:1], by_hand[2][:1])
    spread = model.match(paths[0], REPORTS)
    assert len(set(spread.tolist())) == 5, "each report has a probability of its own"
    one_by_one = [model.match(paths[0], report)[0] for report in REPORTS]
    np.testing.assert_allclose(spread, one_by_one, atol=2e-6)
    over = [model.match(path, REPORTS[0])[0] for path in paths]
    np.testing.assert_allclose(model.match(paths, REPORTS[0]), over, atol=2e-6)


def test_images_may_be_paths_arrays_and_pictures(model, tmp_path):
    eight = np.random.default_rng(0).integers(0, 256, (40, 48), dtype=np.uint8)
    Image.fromarray(eight).save(tmp_path / "scan.png")
    volume = np.stack([255 - eight, eight])
    np.save(tmp_path / "volume.npy", volume)
    forms = [
        tmp_path / "scan.png",
        str(tmp_path / "volume.npy#1"),
        eight,
        eight.astype(np.uint16) * 257,
        eight / 255,
        Image.fromarray(eight),
        Image.fromarray(eight).convert("RGB"),
    ]
    embedded = model.encode_images(forms)
    np.testing.assert_allclose(embedded, np.repeat(embedded[:1], len(forms), 0), atol=2e-6)
    assert model.encode_images(volume).shape == (2, embedded.shape[1])
    np.testing.assert_allclose(model.encode_images(volume)[1:], embedded[:1], atol=2e-6)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ([], "empty list"),
        (np.zeros((4, 4), np.int64), "dtype int64"),
        (np.full((4, 4), 7.0), "floats from"),
        (np.zeros(4), r"\(4,\)"),
        ([np.zeros((3, 8, 8))], "not one image"),
        ([5], "int"),
        ("nowhere.png", "nowhere.png"),
    ],
)
def test_what_is_no_image_is_refused(model, image, words):
    with pytest.raises(InputError, match=words):
        model.encode_images(image)


@pytest.mark.parametrize("texts", [[], [""], [" \n"], [None]])
def test_what_is_no_report_is_refused(model, texts):
    with pytest.raises(InputError, match="report"):
        model.encode_texts(texts)


def test_pairs_must_fit(model, paths):
    with pytest.raises(InputError, match="2 images and 3 reports"):
        model.match(paths[:2], REPORTS[:3])


def test_a_model_says_what_it_was_not_trained_for(material, tmp_path, paths):
    run = refine(settings(material, tmp_path, max_epochs=1, losses=["mlm"])).folder
    model = load_model(run, device="cpu")
    assert model.features(paths).shape[0] == 5
    assert not (model.can_compare or model.can_match or model.can_write)
    with pytest.raises(InputError, match="itc or itm"):
        model.encode_texts(REPORTS)
    with pytest.raises(InputError, match="refined with itm"):
        model.match(paths, REPORTS)
    with pytest.raises(InputError, match="refined with itm"):
        model.explain(paths[0], REPORTS[0])
    with pytest.raises(InputError, match="refined with gm"):
        model.generate(paths[0])


def test_importing_retfiner_is_light():
    code = (
        "import sys, retfiner; assert 'torch' not in sys.modules;"
        "from retfiner import load_model, load_backbone, RefinedModel, vision;"
        "assert load_model.__module__ == 'retfiner.api' and 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(ImportError, match="load_nothing"):
        from retfiner import load_nothing  # noqa: F401
