"""The card says what a reader must know, and nothing of whose data it was."""

import dataclasses
import re

import pytest
import timm
import torch
import yaml

from retfiner.common.errors import InputError
from retfiner.config import RefineConfig
from retfiner.export.card import PRIVATE, model_card
from retfiner.export.extract import ExtractConfig, _epochs_done, extract
from retfiner.refine import refine
from retfiner.vision import BACKBONES, Backbone, save_backbone
from retfiner.vision.backbones import spec_named
from retfiner.vision.mirage import MirageEncoder
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
    for path in (tmp_path / "shared").iterdir():
        content = path.read_bytes()
        assert not any(word in content for word in (b"SECRET", b"pairs.csv", b"small.pth")), path
    extract(config)  # the same run may be written again


def test_the_card_says_how_long_it_trained(run, tmp_path):
    for name in ("best-model", "last"):
        extract(ExtractConfig(run / f"{name}.ckpt", output=tmp_path / f"{name}.pth", card=True))
        card = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
        assert "| epochs done | 1 |" in card and "| optimiser steps | 1 |" in card
        assert "RetFiner: A Vision-Language Refinement Scheme for Retinal Foundation Models" in card


@pytest.mark.parametrize(
    ("ready", "completed", "is_over", "done"), [(3, 3, True, 3), (4, 3, False, 3), (4, 3, True, 4)]
)
def test_an_epoch_that_is_not_over_does_not_count(ready, completed, is_over, done):
    """Between epochs, within one, and after its last step."""
    loop = {
        "epoch_progress": {"current": {"ready": ready, "completed": completed}},
        "epoch_loop.batch_progress": {"is_last_batch": is_over},
    }
    content = {"epoch": 3, "optimizer_states": [], "loops": {"fit_loop": loop}}
    assert _epochs_done(content) == done
    assert _epochs_done({"epoch": 3}) == 4 and _epochs_done({"optimizer_states": []}) is None


def test_nothing_is_said_of_patients_that_nobody_has_looked_at(tmp_path):
    about = {"train_pairs": 8, "validation_pairs": 4, "settings": {"patient_column": "patient_id"}}
    said = "8 pairs to train on, 4 pairs to validate on"
    assert f"{said}; no patient in both" in model_card(
        small_backbone(), tmp_path / "x.pth", "base", about
    )
    about["settings"]["dataset"] = "pairs.py:Pairs"
    card = model_card(small_backbone(), tmp_path / "x.pth", "base", about)
    assert said in card and "no patient in both" not in card


def test_the_lines_for_timm_give_the_model(tmp_path, monkeypatch):
    torch.manual_seed(0)
    encoder = timm.create_model("test_vit", img_size=32, num_classes=0, global_pool="").eval()
    backbone = Backbone(spec_named("timm/test_vit"), encoder, 32, 2)
    save_backbone(tmp_path / "refined.safetensors", backbone, "timm")
    card = model_card(backbone, tmp_path / "refined.safetensors", "timm", {})
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(re.search("```python\n(.*?)```", card, re.S)[1], found)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        ours = backbone.fusion_tokens(images)
        torch.testing.assert_close(found["model"].eval().forward_features(images), ours)


def test_what_a_user_writes_freely_is_told_by_no_card_unless_it_says_nothing_of_the_data():
    harmless = {"accelerator", "backbone", "devices", "monitor", "table_encoding"}
    kinds = {field.name: str(field.type) for field in dataclasses.fields(RefineConfig)}
    free = {name for name, kind in kinds.items() if "Path" in kind or "str" in kind}
    assert free - harmless <= PRIVATE and not harmless & PRIVATE
    assert PRIVATE - {"config"} <= set(kinds)


def test_the_card_says_whether_the_encoder_is_better(tmp_path):
    backbone = small_backbone()
    assert "Against the base model" not in model_card(backbone, tmp_path / "x.pth", "base", {})
    backbone.provenance["guard"] = {
        "base": 0.33, "refined": 0.41, "low": 0.03, "high": 0.12, "chance": 0.2, "patients": 120,
        "step": 7,
    }  # fmt: skip
    card = model_card(backbone, tmp_path / "x.pth", "base", {})
    for part in (
        "Against the base model, without labels: **better**.",
        "0.410 alike to its own (TF-IDF; 1: identical), 0.330 by the base model's features and "
        "0.200 by chance; 95 % interval of the change +0.030 to +0.120, 120 validation patients.",
        "No probe's are given here. Probe it on your own patients",
    ):
        assert part in card
    backbone.provenance["guard"]["patients"] = 7
    assert "**too few patients to say**" in model_card(backbone, tmp_path / "x.pth", "base", {})


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


def backbone_of_size(name, width, depth, heads, patch, image_size=224):
    """A backbone of any size, without memory."""
    spec = BACKBONES[name]
    with torch.device("meta"):
        if spec.in_chans == 1:
            encoder = MirageEncoder(
                width=width, depth=depth, heads=heads, patch=patch, image_size=image_size
            )
        else:
            encoder = small_vit(width, image_size, patch, depth, heads)
    return Backbone(spec, encoder, image_size, heads)


@pytest.mark.parametrize(
    ("name", "size", "title"),
    [
        ("RETFound", (1024, 24, 16, 16), "RETFound (MAE), ViT-L/16"),
        ("RETFound-DINOv2", (1024, 24, 16, 14), "RETFound (DINOv2), ViT-L/14"),
        ("RETFound-Green", (384, 12, 6, 14), "RETFound-Green, ViT-S/14 with 4 registers"),
        ("UrFound", (768, 12, 12, 16), "UrFound, ViT-B/16"),
        ("VisionFM", (768, 12, 12, 16), "VisionFM, ViT-B/16"),
        ("DINOv2", (384, 12, 6, 14), "DINOv2, ViT-S/14"),
        ("DINOv3", (768, 12, 12, 16), "DINOv3, ViT-B/16"),
        ("RETFound-DINOv3", (1024, 24, 16, 16), "RETFound (DINOv3), ViT-L/16"),
        ("EyeCLIP", (768, 12, 12, 32), "EyeCLIP, ViT-B/32"),
        ("OCTCube", (1024, 24, 16, 16), "OCTCube, its ViT-L/16 on single B-scans"),
        ("Uni4Eye++", (1024, 24, 16, 16), "Uni4Eye++, ViT-L/16"),
        ("MAE", (1280, 32, 16, 14), "MAE, ViT-H/14"),
        ("MIRAGE", (768, 12, 12, 32), "MIRAGE, ViT-B/32"),
        ("MIRAGE", (1024, 24, 16, 32), "MIRAGE, ViT-L/32"),
        ("MultiMAE", (768, 12, 8, 32), "In-house MultiMAE (MIRAGE's layout, 8 heads)"),
    ],
)
def test_a_published_size_is_called_by_its_name(tmp_path, name, size, title):
    card = model_card(backbone_of_size(name, *size), tmp_path / "model.pth", "base", {})
    assert f"# {title}, refined on image-report pairs" in card
    assert f"A {name} vision encoder that was refined" in card
    assert f"Cite the base model, {BACKBONES[name].citation}" in card


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("RETFound", (64, 4, 1, 8), "ViT (64 wide, 4 deep, patch 8) in RETFound's layout"),
        ("RETFound", (768, 12, 12, 16), "ViT-B/16 in RETFound's layout"),
        ("RETFound", (1024, 24, 16, 14), "ViT-L/14 in RETFound's layout"),
        ("MIRAGE", (64, 2, 1, 32), "ViT (64 wide, 2 deep, patch 32) in MIRAGE's layout"),
    ],
)
def test_another_size_is_said_to_have_the_layout_and_no_more(tmp_path, name, size, words):
    card = model_card(backbone_of_size(name, *size), tmp_path / "model.pth", "base", {})
    spec = BACKBONES[name]
    assert f"# A {words}, refined" in card
    assert f"A vision encoder, a {words}, that was refined" in card
    assert f"The layout is that of {spec.citation}. Cite RetFiner" in card
    assert spec.title not in card
    assert "Cite the base model" not in card


def test_a_licence_without_derivatives_is_said_in_the_card(tmp_path):
    card = model_card(backbone_of_size("MIRAGE", 768, 12, 12, 32), tmp_path / "x.pth", "base", {})
    assert head_of(card)["license"] == "cc-by-nc-nd-4.0"
    assert "**CC BY-NC-ND 4.0**" in card
    assert "do not pass them on" in card
    others = [name for name in BACKBONES if name != "MIRAGE"]
    assert not any(BACKBONES[name].forbids_derivatives for name in others)


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
