"""The refined encoder, taken out bit for bit and written as its base model was."""

import argparse
import shutil

import pytest
import timm
import torch
from safetensors import safe_open

from retfiner.common.errors import InputError
from retfiner.export import config as config_module
from retfiner.export.config import ExtractConfig
from retfiner.export.extract import extract, read_refined_backbone
from retfiner.refine import refine
from retfiner.vision import load_backbone, save_backbone
from tests.helpers.refinement import HEADS, WIDTH, make_material, settings
from tests.helpers.small import small_vit
from tests.retfiner.vision import layouts


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"), pairs=12, patients=6)


@pytest.fixture(scope="module")
def run(material, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "mit Leerzeichen ü"
    return refine(settings(material, folder, max_epochs=1)).folder


@pytest.fixture(autouse=True)
def weights_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(config_module, "WEIGHTS_FOLDER", tmp_path / "_weights")
    return tmp_path / "_weights"


def trained(run, name="best-model.ckpt"):
    state = torch.load(run / name, weights_only=True)["state_dict"]
    prefix = "model.vision_encoder."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def same(one, two):
    assert one.keys() == two.keys()
    return all(torch.equal(one[key], two[key]) for key in one)


def published(encoder, prefix="model.vision_encoder.", **extra):
    """A Lightning checkpoint of the published code: no description of ours."""
    state = {f"{prefix}{key}": value for key, value in encoder.items()}
    others = {
        "model.multimodal_encoder.cls.predictions.bias": torch.zeros(9),
        "model.contra_head_t.linear.weight": torch.zeros(4, 4),
        "model.contra_head_v.linear.weight": torch.zeros(4, 4),
        "model.itm_head.linear2.weight": torch.zeros(2, 4),
    }
    return {
        "state_dict": state | others | extra,
        "epoch": 6,
        "global_step": 700,
        "pytorch-lightning_version": "2.1.0",
        "hyper_parameters": {"lr": 1e-4},
        "optimizer_states": [{"state": {}, "param_groups": []}],
    }


@pytest.fixture
def encoder():
    torch.manual_seed(3)
    return small_vit(192, 32, 8, 1, 3).state_dict()


@pytest.mark.parametrize("name", ["best-model", "last"])
def test_the_encoder_comes_out_bit_for_bit_in_the_base_models_layout(
    run, material, weights_folder, name
):
    written = extract(ExtractConfig(run / f"{name}.ckpt"))
    assert written == weights_folder / f"{name}_{run.name}_bscan.pth"
    content = torch.load(written, weights_only=True)
    assert same(content["model"], trained(run, f"{name}.ckpt"))
    base = torch.load(material.weights, weights_only=True)["model"]
    assert set(content["model"]) == {k for k in base if not k.startswith(("decoder", "mask"))}
    assert not torch.equal(content["model"]["cls_token"], base["cls_token"])


def test_the_file_says_what_it_is(run):
    about = torch.load(extract(ExtractConfig(run / "best-model.ckpt")), weights_only=True)[
        "retfiner"
    ]
    assert (about["backbone"], about["image_size"], about["num_heads"]) == ("RETFound", 32, HEADS)
    assert about["mean"] == [0.485, 0.456, 0.406]
    assert about["std"] == [0.229, 0.224, 0.225]
    stored = torch.load(run / "best-model.ckpt", weights_only=True)["retfiner"]["provenance"]
    assert about["provenance"]["run_id"] == stored["run_id"]
    assert about["provenance"]["base_weights_file"] == "RETFound_small.pth"
    assert about["provenance"]["run"] == run.name
    assert (about["provenance"]["epoch"], about["provenance"]["step"]) == (0, 1)


def changed_guard(run, folder, **changes):
    """The run's checkpoint, with other numbers of the guard; None drops it."""
    content = torch.load(run / "best-model.ckpt", weights_only=True)
    guard = content["retfiner"].pop("guard")
    if changes:
        content["retfiner"]["guard"] = guard | changes
    folder.mkdir()
    torch.save(content, folder / "best-model.ckpt")
    return folder / "best-model.ckpt"


def test_extraction_repeats_what_was_found_of_the_encoder(run, tmp_path, capsys):
    numbers = {"base": 0.33, "refined": 0.41, "low": 0.03, "high": 0.12, "patients": 120}
    path = changed_guard(run, tmp_path / "better", **numbers)
    extracted = extract(ExtractConfig(path))
    expected = (
        "Encoder:        better on your own reports (0.410 against the base's 0.330, interval of "
        "the change +0.030 to +0.120, 120 validation patients)\n"
    )
    out = capsys.readouterr().out
    assert expected in out
    assert "warning" not in out
    assert "as of step" not in out
    extract(ExtractConfig(extracted, output=tmp_path / "again.pth"))  # a file that travels alone
    assert expected in capsys.readouterr().out
    extract(ExtractConfig(changed_guard(run, tmp_path / "older", **numbers, step=0)))
    assert "as of step 0; it has gone on since" in capsys.readouterr().out


def test_extraction_warns_of_a_worse_encoder(run, tmp_path, capsys):
    numbers = {"base": 0.41, "refined": 0.33, "low": -0.12, "high": -0.03, "patients": 120}
    extract(ExtractConfig(changed_guard(run, tmp_path / "worse", **numbers)))
    out = capsys.readouterr().out
    assert "Encoder:        worse on your own reports" in out
    assert "warning: refinement made the encoder worse on patients it has not seen" in out
    assert "Try a lower --vision_lr or --lr, --lora_rank 8, more pairs." in out


def test_extraction_says_where_nothing_was_measured(run, tmp_path, capsys):
    extract(ExtractConfig(run / "best-model.ckpt"))
    assert "Encoder:        too few patients to say" in capsys.readouterr().out
    extract(ExtractConfig(changed_guard(run, tmp_path / "none")))
    assert "no file says if it is better than its base; probe it before use" in (
        capsys.readouterr().out
    )


def test_the_file_loads_without_being_told_anything(run, weights_folder):
    backbone = load_backbone(extract(ExtractConfig(run / "best-model.ckpt")))
    assert backbone.spec.name == "RETFound"
    assert same(backbone.encoder.state_dict(), trained(run))
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    oracle = small_vit(WIDTH, 32, 8, 2, HEADS).eval()
    oracle.load_state_dict(trained(run))
    expected = oracle.forward_features(images)  # patches after the final norm
    assert torch.allclose(backbone.fusion_tokens(images), expected, atol=1e-6)


@pytest.mark.parametrize("format", ["base", "safetensors", "timm"])
def test_two_extractions_write_the_same_bytes(run, tmp_path, format):
    """Else a probe of the same weights would be another one, and its results be there twice."""
    suffix = ".pth" if format == "base" else ".safetensors"
    one, two = (
        extract(ExtractConfig(run / "best-model.ckpt", format=format, output=tmp_path / name))
        for name in (f"one{suffix}", f"two{suffix}")
    )
    assert one.read_bytes() == two.read_bytes()


def test_safetensors(run, weights_folder):
    written = extract(ExtractConfig(run / "best-model.ckpt", format="safetensors"))
    assert written == weights_folder / f"best-model_{run.name}_bscan.safetensors"
    with safe_open(written, "pt") as file:
        assert same({key: file.get_tensor(key) for key in file.keys()}, trained(run))  # noqa: SIM118
    assert load_backbone(written).provenance["run"] == run.name


def test_timm_reads_the_timm_format(run):
    written = extract(ExtractConfig(run / "best-model.ckpt", format="timm"))
    model = timm.create_model(
        "vit_base_patch16_224", checkpoint_path=str(written), img_size=32, patch_size=8,
        embed_dim=WIDTH, depth=2, num_heads=HEADS, num_classes=0,
    )  # fmt: skip
    assert same(model.state_dict(), trained(run))


def test_a_refined_file_can_be_written_in_another_format(run, tmp_path):
    first = extract(ExtractConfig(run / "best-model.ckpt"))
    again = extract(ExtractConfig(first, format="timm", output=tmp_path / "x.safetensors"))
    assert same(load_backbone(again).encoder.state_dict(), trained(run))


@pytest.mark.parametrize("relative", [False, True])
def test_any_path_and_any_folder(run, tmp_path, monkeypatch, weights_folder, relative):
    odd = tmp_path / "ein Ordner" / "RETFound_lr=1e-4 ß"
    odd.mkdir(parents=True)
    path = odd / "epoch=3-val=0.5.ckpt"
    shutil.copy(run / "best-model.ckpt", path)
    monkeypatch.chdir(odd if relative else tmp_path)
    written = extract(ExtractConfig(type(path)(path.name) if relative else path))
    assert written == weights_folder / "epoch=3-val=0.5_RETFound_lr=1e-4 ß_bscan.pth"
    assert same(load_backbone(written).encoder.state_dict(), trained(run))


def test_a_second_extraction_replaces_the_first_of_the_same_run_only(run, tmp_path, material):
    target = tmp_path / "out.pth"
    extract(ExtractConfig(run / "last.ckpt", output=target))
    extract(ExtractConfig(run / "best-model.ckpt", output=target))
    other = refine(settings(material, tmp_path / "other", max_epochs=1, seed=5)).folder
    before = target.read_bytes()
    with pytest.raises(InputError, match="of another run"):
        extract(ExtractConfig(other / "best-model.ckpt", output=target))
    assert target.read_bytes() == before


def test_no_file_of_someone_elses_is_replaced(run, tmp_path, encoder):
    target = tmp_path / "precious.pth"
    torch.save({"model": encoder}, target)
    with pytest.raises(InputError, match="of another run"):
        extract(ExtractConfig(run / "best-model.ckpt", output=target))


def test_a_published_training_checkpoint(tmp_path, encoder):
    extra = {
        "model.vision_encoder.proj.weight": torch.zeros(768, 192),
        "model.vision_encoder.proj.bias": torch.zeros(768),
        "model.vision_encoder.head.weight": torch.zeros(3, 192),
    }
    path = tmp_path / "best-model.ckpt"
    torch.save(published(encoder, **extra), path)
    with pytest.raises(InputError, match="several backbones"):
        extract(ExtractConfig(path, image_size=32))
    for name, wrapper, prefix in (("RETFound", "model", ""), ("VisionFM", "teacher", "backbone.")):
        config = ExtractConfig(path, backbone=name, image_size=32, output=tmp_path / f"{name}.pth")
        content = torch.load(extract(config), weights_only=True)
        assert content["retfiner"]["backbone"] == name
        assert content["retfiner"]["provenance"]["step"] == 700
        assert same(content[wrapper], {prefix + key: value for key, value in encoder.items()})
        assert extract(config)  # the same once more


def test_the_published_masked_autoencoder_sits_one_level_deeper(tmp_path, encoder):
    torch.save(published(encoder, "model.vision_encoder.model."), tmp_path / "best-model.ckpt")
    backbone = read_refined_backbone(tmp_path / "best-model.ckpt", "MAE", 32)
    assert same(backbone.encoder.state_dict(), encoder)


@pytest.mark.parametrize("name", ["RetFiner_RETFound", "RetFiner_UrFound", "RetFiner_VisionFM"])
def test_released_encoders(tmp_path, encoder, name):
    extra = {"head.weight": torch.zeros(3, 192), "head.bias": torch.zeros(3)}
    if name == "RetFiner_RETFound":
        extra |= {"proj.weight": torch.ones(768, 192), "proj.bias": torch.ones(768)}
    torch.save(encoder | extra, tmp_path / f"{name}.pth")
    config = ExtractConfig(tmp_path / f"{name}.pth", image_size=32)
    backbone = load_backbone(extract(config))
    assert backbone.spec.name == name.removeprefix("RetFiner_")
    assert same(backbone.encoder.state_dict(), encoder)
    assert extract(config) == config.default_output  # the same once more


def test_a_base_model_is_no_refined_model(material, tmp_path, encoder):
    with pytest.raises(InputError, match="is no refined model") as caught:
        extract(ExtractConfig(material.weights))
    assert "probe it as it is" in str(caught.value)
    torch.save({"model": encoder, "args": argparse.Namespace(model="mae")}, tmp_path / "b.pth")
    with pytest.raises(InputError, match="is no refined model"):
        extract(ExtractConfig(tmp_path / "b.pth", backbone="RETFound", image_size=32))


def test_other_checkpoints(tmp_path, run, encoder):
    torch.save({"state_dict": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match=r"no refined vision encoder.*\n.*fc\.weight"):
        extract(ExtractConfig(tmp_path / "other.ckpt"))
    (tmp_path / "page.ckpt").write_text("<html>log in</html>")
    with pytest.raises(InputError, match="is no checkpoint"):
        extract(ExtractConfig(tmp_path / "page.ckpt"))
    with pytest.raises(InputError, match="no checkpoint at"):
        extract(ExtractConfig(tmp_path / "nothing.ckpt"))
    del encoder["blocks.0.mlp.fc2.weight"]
    torch.save(published(encoder), tmp_path / "holes.ckpt")
    with pytest.raises(InputError, match=r"1 weights missing(.|\n)*mlp\.fc2\.weight"):
        extract(ExtractConfig(tmp_path / "holes.ckpt", backbone="RETFound", image_size=32))


def test_what_the_checkpoint_says_cannot_be_overruled(run):
    with pytest.raises(InputError, match="another image size"):
        extract(ExtractConfig(run / "best-model.ckpt", image_size=64))
    with pytest.raises(InputError, match="not a checkpoint of MIRAGE"):
        extract(ExtractConfig(run / "best-model.ckpt", backbone="MIRAGE"))


def test_what_is_written_is_refinable_again(run, material, tmp_path):
    written = extract(ExtractConfig(run / "best-model.ckpt"))
    again = refine(settings(material, tmp_path, model_weights=written, max_epochs=1, lr=1e-12))
    one, two = trained(again.folder), load_backbone(written).encoder.state_dict()
    assert all(torch.allclose(one[key], two[key], atol=1e-6) for key in one)


def test_suffix_and_format_go_together(run, tmp_path):
    with pytest.raises(InputError, match="wrong suffix"):
        extract(ExtractConfig(run / "best-model.ckpt", output=tmp_path / "x.safetensors"))
    with pytest.raises(InputError, match="wrong suffix"):
        extract(ExtractConfig(run / "best-model.ckpt", format="timm", output=tmp_path / "x.pth"))
    save_backbone(tmp_path / "y.pth", load_backbone(extract(ExtractConfig(run / "last.ckpt"))))


def test_a_refined_mirage_is_extracted_but_not_pushed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("retfiner.export.extract.push_folder", lambda *_: pytest.fail("uploaded"))
    state = {f"model.{key}": value for key, value in layouts.mirage_state().items()}
    path = tmp_path / "best-model.ckpt"
    about = {"backbone": "MIRAGE", "image_size": layouts.SIZE, "num_heads": layouts.HEADS}
    torch.save(published(state) | {"retfiner": about | {"provenance": {}}}, path)
    with pytest.raises(InputError, match="may not be shared") as caught:
        extract(ExtractConfig(path, format="hf", push="a/b", output=tmp_path / "hub"))
    for part in ("CC BY-NC-ND 4.0", "got:", "expected:", "leave --push out"):
        assert part in str(caught.value)
    assert not (tmp_path / "hub").exists()
    extract(ExtractConfig(path, output=tmp_path / "mirage.pth"))
    assert "CC BY-NC-ND 4.0 lets nobody pass on" in capsys.readouterr().out
