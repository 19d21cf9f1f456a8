"""Checkpoints as people have them: wrapped, converted, with two networks, of other kinds."""

from __future__ import annotations

import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ViTConfig,
    ViTForImageClassification,
)

from retfiner.common.errors import InputError
from retfiner.vision import load_backbone

from . import layouts
from .layouts import HEADS, SIZE, WIDTH

PLAIN, OTHER, SCALED = layouts.vit(), layouts.vit(seed=1), layouts.vit(layer_scale=True)


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def load(folder, content, name="RETFound.pth", **changes):
    torch.save(content, folder / name)
    return load_backbone(folder / name, **({"image_size": SIZE, "num_heads": HEADS} | changes))


def holds(backbone, state):
    ours = backbone.encoder.state_dict()
    return ours.keys() == state.keys() and all(ours[key].equal(state[key]) for key in state)


@pytest.mark.parametrize(
    "prefix",
    [
        "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model._orig_mod.", "net.encoder.",
        "_fsdp_wrapped_module.", "model.backbone.vit.", "student.",
    ],
)  # fmt: skip
@pytest.mark.parametrize("entry", ["model", "state_dict", "weights", None])
def test_wrappers_are_taken_off(tmp_path, prefix, entry):
    state = prefixed(prefix, PLAIN)
    if prefix == "net.encoder.":
        state |= {"net.decoder.weight": torch.ones(2, 2), "net.loss_scale": torch.ones(1)}
    content = state if entry is None else {entry: state, "epoch": 3}
    name = "VisionFM.pth" if prefix == "student." else "RETFound.pth"
    assert holds(load(tmp_path, content, name), PLAIN)


def test_blocks_compiled_one_by_one(tmp_path):
    state = {key.replace("blocks.0.", "blocks.0._orig_mod."): v for key, v in PLAIN.items()}
    assert holds(load(tmp_path, {"model": state}), PLAIN)


def test_a_lightning_run_of_ones_own_is_no_refinement(tmp_path):
    content = {
        "state_dict": prefixed("model.", PLAIN),
        "pytorch-lightning_version": "2.4.0",
        "epoch": 3,
    }
    assert holds(load(tmp_path, content, "RETFound.ckpt"), PLAIN)


def test_the_teacher_of_a_dinov2_run_is_taken_and_said(tmp_path):
    other = {key: value + 1 for key, value in SCALED.items()}
    state = prefixed("student.backbone.", other) | prefixed("teacher.backbone.", SCALED)
    state |= {"teacher.dino_head.mlp.0.weight": torch.zeros(4, WIDTH)}
    backbone = load(tmp_path, {"model": state, "iteration": 9})
    assert backbone.spec.name == "RETFound-DINOv2"
    assert holds(backbone, SCALED)
    assert "teacher.backbone" in backbone.notes[0]
    assert "student.backbone" in backbone.notes[0]


@pytest.mark.parametrize(
    ("raw", "averaged"), [("state_dict", "state_dict_ema"), ("model", "model_ema")]
)
def test_averaged_weights_are_taken_and_said(tmp_path, raw, averaged):
    backbone = load(tmp_path, {raw: OTHER, averaged: prefixed("module.", PLAIN)})
    assert holds(backbone, PLAIN)
    assert averaged in backbone.notes[0]
    assert repr(raw) in backbone.notes[0]


def test_averaged_weights_of_torch(tmp_path):
    model = torch.optim.swa_utils.AveragedModel(torch.nn.Linear(2, 2))
    count = {"n_averaged": model.state_dict()["n_averaged"]}
    assert holds(load(tmp_path, prefixed("module.", PLAIN) | count), PLAIN)


def test_two_encoders_are_never_guessed_between(tmp_path):
    state = prefixed("query.", PLAIN) | prefixed("momentum.", OTHER)
    with pytest.raises(InputError, match="several encoders") as caught:
        load(tmp_path, {"model": state})
    assert "query.*" in str(caught.value)


SMALL = {
    "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS,
    "image_size": SIZE, "patch_size": 8,
}  # fmt: skip
DINOV3 = SMALL | {"intermediate_size": 96, "num_register_tokens": 4}
GATED = {"use_gated_mlp": True, "hidden_act": "silu"}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (lambda: ViTForImageClassification(ViTConfig(intermediate_size=96, **SMALL)), "MAE"),
        (lambda: Dinov2Model(Dinov2Config(**SMALL)), "DINOv2"),
        (lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SMALL)), "DINOv2"),
        (lambda: DINOv3ViTModel(DINOv3ViTConfig(**DINOV3)), "DINOv3"),
        (lambda: DINOv3ViTModel(DINOv3ViTConfig(**DINOV3, **GATED)), "DINOv3"),
    ],
    ids=["vit", "dinov2", "registers", "dinov3", "dinov3 gated"],
)
def test_transformers_layouts_compute_the_same(tmp_path, model, name):
    torch.manual_seed(0)
    model = model().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    model.save_pretrained(tmp_path)
    backbone = load_backbone(tmp_path / "model.safetensors", name, image_size=SIZE, num_heads=HEADS)
    eps = getattr(model, "vit", model).config.layer_norm_eps
    for module in (*backbone.encoder.modules(), *model.modules()):
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = eps
    images = layouts.images().float()
    with torch.no_grad():
        theirs = getattr(model, "vit", model)(images).last_hidden_state
        ours = backbone.norm(torch.cat(backbone.tokens(images), 1))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"pos_embed": None, "rope_embed.periods": torch.ones(4)}, "rotary positions"),
        ({"patch_embed.proj.weight": torch.zeros(WIDTH, 1, 3, 8, 8)}, "three-dimensional"),
        (layouts.clip(layouts.clip_visual()), "OpenAI's CLIP"),
        ({"cls_token": None}, "without a class token"),
        ({"pos_embed": None}, "without learned positions"),
        ({"blocks.0.attn.relative_position_bias_table": torch.ones(9, 4)}, "relative positions"),
    ],
)
@pytest.mark.parametrize("requested", ["auto", "RETFound", "timm/vit_tiny_patch16_224"])
def test_other_networks_are_named(tmp_path, changes, kind, requested):
    state = {key: value for key, value in (PLAIN | changes).items() if value is not None}
    if "CLIP" in kind:
        state = changes
    if "relative" in kind:
        del state["pos_embed"]
    if "three" in kind:
        state |= {"pos_embed_spatial": state.pop("pos_embed")}
    with pytest.raises(InputError, match=kind) as caught:
        load(tmp_path, {"teacher": prefixed("backbone.", state)}, backbone=requested)
    said = str(caught.value)
    assert "patch_embed.proj" in said or "class_embedding" in said
    assert "--backbone" not in said


def test_an_unknown_layout_shows_keys_and_no_circle(tmp_path):
    with pytest.raises(InputError) as caught:
        load(tmp_path, {"model": {"tower.linear.weight": torch.ones(2)}}, backbone="RETFound")
    assert "tower.linear.weight" in str(caught.value)
    assert "leave --backbone out" not in str(caught.value)


def test_another_grid_of_positions_is_said(tmp_path):
    large = layouts.filled(layouts.vit_shapes(WIDTH, 2, 8, 1 + 16**2))
    [note] = load(tmp_path, {"model": large}).notes
    assert "128 x 128" in note
    assert "--image_size 128" in note
    assert load(tmp_path, {"model": large}, image_size=128).notes == ()


@pytest.mark.parametrize("outer", ["checkpoint", "state_dict", "module"])
def test_an_entry_in_an_entry(tmp_path, outer):
    assert holds(load(tmp_path, {outer: {"model": PLAIN, "step": 3}, "epoch": 3}), PLAIN)
    with pytest.raises(InputError, match="no weights"):
        load(tmp_path, {"a": {"model": PLAIN}, "b": {"model": OTHER}})


def test_averaged_weights_in_one_entry_with_the_raw_ones(tmp_path):
    state = prefixed("model.", OTHER) | prefixed("ema_model.module.", PLAIN)
    backbone = load(tmp_path, {"state_dict": state})
    assert holds(backbone, PLAIN)
    assert "ema_model.module.*" in backbone.notes[0]


@pytest.mark.parametrize("head", ["classifier", "fc", "mlp_head.0", "heads.head"])
def test_classifiers_by_other_names_are_left_out(tmp_path, head):
    state = PLAIN | {f"{head}.weight": torch.ones(5, WIDTH), f"{head}.bias": torch.ones(5)}
    assert holds(load(tmp_path, {"model": state}), PLAIN)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    for value in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="no numbers"):
            load(tmp_path, PLAIN | {"norm.weight": torch.full((WIDTH,), value)})


def test_safetensors_by_any_name(tmp_path):
    save_file(PLAIN, tmp_path / "RETFound.pth")
    backbone = load_backbone(tmp_path / "RETFound.pth", image_size=SIZE, num_heads=HEADS)
    assert holds(backbone, PLAIN)
    torch.save(PLAIN, tmp_path / "RETFound.safetensors")
    with pytest.raises(InputError, match=r"rename it: RETFound\.pth"):
        load_backbone(tmp_path / "RETFound.safetensors")


def script(path):
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), path)


def packed(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("RETFound.pth", b"x")


@pytest.mark.parametrize(
    ("name", "write", "found"),
    [
        ("a.pth", script, "TorchScript"),
        ("a.zip", packed, "an archive of RETFound.pth"),
        ("a.pth.gz", lambda path: path.write_bytes(b"\x1f\x8b" + bytes(9)), "unpack it"),
        ("a.onnx", lambda path: path.write_bytes(b"\x08\x07"), "ONNX"),
        ("a-00001-of-00002.bin", lambda path: path.write_bytes(b"PK\x03\x04"), "several parts"),
    ],
)
def test_what_others_write_is_named(tmp_path, name, write, found):
    write(tmp_path / name)
    with pytest.raises(InputError, match="is no checkpoint") as caught:
        load_backbone(tmp_path / name)
    assert found in str(caught.value)
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    ("inside", "remedy"),
    [
        ("model.safetensors", "give the file in it"),
        ("model.safetensors.index.json", "join the parts"),
        ("__0_0.distcp", "dcp_to_torch"),
        ("global_step9/mp_rank_00_model_states.pt", "zero_to_fp32.py"),
    ],
)
def test_a_folder_is_told_what_to_give(tmp_path, inside, remedy):
    (tmp_path / inside).parent.mkdir(exist_ok=True)
    (tmp_path / inside).touch()
    with pytest.raises(InputError, match="a folder") as caught:
        load_backbone(tmp_path)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ({"embeddings.word_embeddings.weight": torch.ones(9, 8)}, "a language model"),
        ({"embeddings.class_embedding": torch.ones(8)}, "CLIP of transformers"),
        ({"conv_stem.weight": torch.ones(8), "bn.running_mean": torch.ones(8)}, "convolutional"),
        ({"model.blocks.0.attn.qkv.lora_A.weight": torch.ones(4, 8)}, "LoRA"),
        ({"decoder_embed.weight": torch.ones(4, 8)}, "the decoder of a masked autoencoder"),
    ],
)
def test_kinds_without_patches_are_named(tmp_path, state, kind):
    with pytest.raises(InputError, match="cannot be used") as caught:
        load(tmp_path, state)
    assert kind in str(caught.value)
