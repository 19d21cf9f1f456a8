"""The card says what a reader must know, and nothing of whose data it was."""

import pytest
import yaml

from retfiner.common.errors import InputError
from retfiner.export.card import model_card
from retfiner.export.extract import ExtractConfig, extract
from retfiner.refine import refine
from retfiner.vision import BACKBONES, Backbone
from tests.helpers.refinement import make_material, settings
from tests.helpers.small import small_backbone, small_vit


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("SECRETFOLDER")
    material = make_material(folder, pairs=12, patients=6)
    return refine(settings(material, folder, max_epochs=1, note="SECRETNOTE")).folder


def head_of(card):
    return yaml.safe_load(card.split("---")[1])


def test_a_folder_for_transformers_has_a_card(run, tmp_path):
    table = tmp_path / "table.md"
    table.write_text("| data set | change |\n|---|---|\n| OCTDL | +5.8 |\n", encoding="utf-8")
    config = ExtractConfig(
        run / "best-model.ckpt", format="hf", output=tmp_path / "shared", results=table
    )
    extract(config)
    card = (tmp_path / "shared" / "README.md").read_text(encoding="utf-8")
    assert head_of(card)["license"] == "cc-by-nc-4.0"
    assert head_of(card)["library_name"] == "transformers"
    for part in (
        "32 x 32 pixels",
        "| lr | 0.001 |",
        "itc x 1",
        "| OCTDL | +5.8 |",
        "pairs to train",
    ):
        assert part in card
    assert "SECRET" not in card
    assert "pairs.csv" not in card
    extract(config)  # the same run may be written again


def test_another_runs_folder_is_not_overwritten(run, tmp_path):
    target = tmp_path / "shared"
    target.mkdir()
    (target / "config.json").write_text("{}")
    with pytest.raises(InputError, match="is of another run"):
        extract(ExtractConfig(run / "best-model.ckpt", format="hf", output=target))


@pytest.mark.parametrize(("name", "hub"), [("UrFound", "mit"), ("VisionFM", "other")])
def test_the_licence_is_the_base_models(tmp_path, name, hub):
    spec = BACKBONES[name]
    backbone = Backbone(spec, small_vit(), 32, 4)
    card = model_card(backbone, tmp_path / "model.pth", "base", {})
    assert head_of(card)["license"] == hub
    assert spec.licence in card
    assert spec.citation in card
    assert "does not say how it was refined" in card


def test_results_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        model_card(small_backbone(), tmp_path / "x.pth", "base", {}, tmp_path / "no.md")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"results": "table.md"}, "--results has no effect"),
        ({"push": "a/b"}, "--push has no effect"),
        ({"push": "a/b", "format": "onnx"}, "--push has no effect"),
    ],
)
def test_flags_without_effect_are_errors(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        ExtractConfig(tmp_path / "best-model.ckpt", **options)
