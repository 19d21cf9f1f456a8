"""Files that cannot be used say so; weights that do not fit are named; sizes are settled."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from retfiner.common.errors import InputError
from retfiner.vision import BACKBONES, backbone_from_state, load_backbone, read_checkpoint

from . import layouts, naive
from .layouts import GRID, HEADS, SIZE

PLAIN = layouts.vit()


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


class Hostile:
    """Unpickled by a trusting reader, it creates a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("as_zip", [True, False])
def test_hostile_pickle_runs_nothing(tmp_path, as_zip):
    trace = tmp_path / "executed"
    path = tmp_path / "RETFound.pth"
    torch.save(
        {"model": PLAIN, "args": Hostile(trace)}, path, _use_new_zipfile_serialization=as_zip
    )
    with pytest.raises(InputError, match="cannot be read safely") as caught:
        load_backbone(path)
    assert "posix.mkdir" in str(caught.value) or "nt.mkdir" in str(caught.value)
    assert not trace.exists()
    torch.load(path, weights_only=False)  # a trusting reader would have run it
    assert trace.exists()


def test_whole_module_is_refused_by_its_class(tmp_path):
    with pytest.raises(InputError, match="cannot be read safely") as caught:
        read_checkpoint(saved(tmp_path / "m.pth", torch.nn.Linear(2, 2)))
    assert "torch.nn.modules.linear.Linear" in str(caught.value)
    assert "state_dict" in str(caught.value)


def test_namespace_is_read_and_nothing_stays_allowed(tmp_path):
    path = saved(tmp_path / "a.pth", layouts.mae(PLAIN))
    assert isinstance(read_checkpoint(path).content["args"], Namespace)
    assert Namespace not in torch.serialization.get_safe_globals()


HALF_A_FILE = {"zip": True, "legacy": False}


@pytest.mark.parametrize("kind", HALF_A_FILE)
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.98])
def test_truncated_file(tmp_path, kind, keep):
    path = tmp_path / "RETFound.pth"
    torch.save(layouts.mae(PLAIN), path, _use_new_zipfile_serialization=HALF_A_FILE[kind])
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InputError, match=r"damaged|cannot be read safely") as caught:
        load_backbone(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("empty.pth", b"", "an empty file"),
        ("empty.safetensors", b"", "an empty file"),
        ("login.pth", b"\n <!DOCTYPE html><html>Sign in</html>", "a web page"),
        ("login.safetensors", b"<html><head></head></html>", "a web page"),
        ("lfs.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS"),
        ("text.pth", b"hello", "begins with b'hello'"),
        ("noise.safetensors", b"\x08\0\0\0\0\0\0\0notjson!", "header"),
        ("lost.safetensors", b"\xff" * 64, "header"),
    ],
)
def test_what_is_no_checkpoint(tmp_path, name, data, found):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=found) as caught:
        load_backbone(tmp_path / name)
    assert name in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="no checkpoint at") as caught:
        load_backbone(tmp_path / "none.pth")
    assert "pretrained_weights" in str(caught.value)
    with pytest.raises(InputError, match="a folder"):
        load_backbone(tmp_path)


def test_no_weights_inside(tmp_path):
    with pytest.raises(InputError, match="holds no weights"):
        load_backbone(saved(tmp_path / "a.pth", {"epoch": 3, "model": {"lr": 0.1}}))
    with pytest.raises(InputError, match="something else than a dictionary"):
        load_backbone(saved(tmp_path / "b.pth", [PLAIN]))


def test_training_checkpoint_wants_extraction_first(tmp_path):
    weights = {f"model.vision_encoder.{k}": v for k, v in PLAIN.items()}
    weights["model.multimodal_encoder.bert.embeddings.word_embeddings.weight"] = torch.ones(3)
    for extra in ({"pytorch-lightning_version": "2.6.6"}, {}):
        path = saved(tmp_path / "best-model.ckpt", {"state_dict": weights, **extra})
        for name in ("auto", "RETFound"):
            with pytest.raises(InputError, match="get_vision_backbone_for_linprobing"):
                load_backbone(path, name)


def test_names_missing_and_left_over_keys_and_shapes(tmp_path):
    state = dict(PLAIN)
    del state["blocks.1.norm2.bias"]
    state["blocks.1.attn.qk_scale"] = torch.ones(5)
    state["blocks.0.mlp.fc2.weight"] = torch.ones(48, 96)
    path = saved(tmp_path / "RETFound.pth", {"model": state})
    with pytest.raises(InputError) as caught:
        load_backbone(path, "RETFound", SIZE, HEADS)
    message = str(caught.value)
    assert "1 weights missing, 1 left over, 1 of another shape" in message
    got, expected = message.split("expected:")
    assert "blocks.1.attn.qk_scale (5,)" in got
    assert "blocks.0.mlp.fc2.weight (48, 96)" in got
    assert "blocks.0.mlp.fc2.weight (48, 192)" in expected
    assert "blocks.1.norm2.bias (48,)" in expected


@pytest.mark.parametrize("key", ["norm.weight", "blocks.0.norm1.weight", "patch_embed.proj.bias"])
def test_each_missing_weight_is_an_error(tmp_path, key):
    state = {k: v for k, v in PLAIN.items() if k != key}
    path = saved(tmp_path / "RETFound.pth", {"model": state})
    with pytest.raises(InputError, match=key.replace(".", r"\.")):
        load_backbone(path, "auto", SIZE, HEADS)


def test_mirage_names_what_is_missing_and_left_over(tmp_path):
    state = layouts.mirage_state()
    del state["encoder.1.norm1.bias"]
    path = saved(tmp_path / "MIRAGE.pth", {"model": state | {"encoder.0.extra": torch.ones(2)}})
    with pytest.raises(InputError, match=r"encoder\.0\.extra (.|\n)*encoder\.1\.norm1\.bias"):
        load_backbone(path, "auto", SIZE, HEADS)


def test_missing_block_in_the_middle(tmp_path):
    state = {k.replace("blocks.1.", "blocks.2."): v for k, v in PLAIN.items()}
    path = saved(tmp_path / "RETFound.pth", {"model": state})
    with pytest.raises(InputError, match="12 weights missing"):
        load_backbone(path, "auto", SIZE, HEADS)


def test_fine_tuned_classifier_with_fc_norm(tmp_path):
    state = {k.replace("norm.", "fc_norm.") if k[:5] == "norm." else k: v for k, v in PLAIN.items()}
    path = saved(tmp_path / "RETFound.pth", {"model": state | {"head.weight": torch.ones(5, 48)}})
    with pytest.raises(InputError, match="fine-tuned"):
        load_backbone(path, "auto", SIZE, HEADS)
    both = PLAIN | {"fc_norm.weight": torch.ones(48), "fc_norm.bias": torch.ones(48)}
    path = saved(tmp_path / "RETFound_both.pth", {"model": both})
    encoder = load_backbone(path, "auto", SIZE, HEADS).encoder
    torch.testing.assert_close(encoder.norm.weight.data, PLAIN["norm.weight"], rtol=0, atol=0)


def test_two_keys_that_become_one(tmp_path):
    state = PLAIN | {"module.cls_token": torch.ones(1, 1, 48)}
    with pytest.raises(InputError, match="both called 'cls_token'"):
        load_backbone(saved(tmp_path / "RETFound.pth", {"model": state}))


def test_wrong_number_of_channels_and_quantised_weights(tmp_path):
    gray = PLAIN | {"patch_embed.proj.weight": torch.ones(48, 1, 8, 8)}
    with pytest.raises(InputError, match="another number of channels"):
        load_backbone(saved(tmp_path / "RETFound.pth", {"model": gray}), "auto", SIZE, HEADS)
    whole = PLAIN | {"norm.bias": torch.ones(48, dtype=torch.int8)}
    with pytest.raises(InputError, match=r"norm\.bias is no floating-point weight"):
        load_backbone(saved(tmp_path / "RETFound.pth", {"model": whole}), "auto", SIZE, HEADS)


def test_number_of_heads(tmp_path):
    path = saved(tmp_path / "RETFound.pth", {"model": PLAIN})
    with pytest.raises(InputError, match="num_heads"):
        load_backbone(path, "auto", SIZE)
    with pytest.raises(InputError, match="must divide the width"):
        load_backbone(path, "auto", SIZE, 5)
    usual = layouts.filled(layouts.vit_shapes(192, 1, 8, 17))
    path = saved(tmp_path / "RETFound_tiny.pth", {"model": usual})
    assert load_backbone(path, "auto", SIZE).num_heads == 3
    assert load_backbone(path, "auto", SIZE, 6).num_heads == 6
    mirage = layouts.filled(layouts.mirage_shapes(192, 1, 8, 4))
    path = saved(tmp_path / "x.pth", {"model": mirage})
    assert load_backbone(path, "MIRAGE", SIZE).num_heads == 3
    assert load_backbone(path, "MultiMAE", SIZE).num_heads == 8


def test_image_size_must_be_tiled(tmp_path):
    path = saved(tmp_path / "RETFound.pth", {"model": PLAIN})
    for size in (30, 0, -8):
        with pytest.raises(InputError, match="tile the image"):
            load_backbone(path, "auto", size, HEADS)


def test_default_image_size_is_the_backbones(tmp_path):
    path = saved(tmp_path / "RETFound.pth", {"model": PLAIN})
    backbone = load_backbone(path, num_heads=HEADS)
    assert backbone.image_size == 224
    assert backbone.encoder.pos_embed.shape == (1, 1 + 28**2, 48)


@pytest.mark.parametrize("grid", [2, 6])
@pytest.mark.parametrize("prefix", [1, 0])
def test_positions_are_interpolated_and_prefixes_kept(tmp_path, grid, prefix):
    state = layouts.vit(layer_scale=True) if prefix else layouts.green()
    path = saved(tmp_path / f"{'dinov2' if prefix else 'retfoundgreen'}.pth", state)
    encoder = load_backbone(path, "auto", grid * 8, HEADS).encoder
    old = state["pos_embed"][:, prefix:].reshape(1, GRID, GRID, 48).permute(0, 3, 1, 2)
    new = F.interpolate(old, (grid, grid), mode="bicubic", antialias=True)
    torch.testing.assert_close(
        encoder.pos_embed[:, prefix:].data, new.flatten(2).transpose(1, 2), rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(encoder.pos_embed[:, :prefix].data, state["pos_embed"][:, :prefix])


def test_mirage_positions_are_interpolated(tmp_path):
    state = layouts.mirage_state()
    path = saved(tmp_path / "MIRAGE.pth", layouts.mirage(state))
    backbone = load_backbone(path, "auto", 48, HEADS)
    key = "input_adapters.bscan.pos_emb"
    larger = F.interpolate(state[key], (6, 6), mode="bicubic", align_corners=False)
    backbone.encoder.double()
    x = layouts.images(1, size=48)
    expected = naive.mirage(state | {key: larger}, x, HEADS)[1]
    torch.testing.assert_close(backbone.tokens(x).patches, expected, rtol=1e-9, atol=1e-9)


def test_positions_of_no_square_grid(tmp_path):
    state = PLAIN | {"pos_embed": torch.ones(1, 1 + 15, 48)}
    state["pos_embed"] = torch.ones(1, 13, 48)
    with pytest.raises(InputError, match="no square grid"):
        load_backbone(saved(tmp_path / "RETFound.pth", {"model": state}), "auto", SIZE, HEADS)


def test_images_of_another_shape(tmp_path):
    backbone = load_backbone(saved(tmp_path / "RETFound.pth", {"model": PLAIN}), "auto", 32, HEADS)
    for shape in ((2, 1, 32, 32), (2, 3, 32, 40), (3, 32, 32)):
        with pytest.raises(InputError, match="batch of this shape"):
            backbone.tokens(torch.zeros(shape))


def test_backbone_from_a_training_checkpoint():
    backbone = backbone_from_state("retfound", PLAIN, SIZE, HEADS)
    assert backbone.spec is BACKBONES["RETFound"]
    backbone.encoder.double()
    x = layouts.images()
    expected = naive.vit(PLAIN, x, HEADS)[1]
    torch.testing.assert_close(backbone.tokens(x).patches, expected, rtol=1e-9, atol=1e-9)
    # MIRAGE's training checkpoints hold model.vision_encoder.model.*
    state = layouts.mirage_state()
    for keys in (state, {f"model.{k}": v for k, v in state.items()}):
        encoder = backbone_from_state("MIRAGE", keys, SIZE, HEADS).encoder
        assert encoder.state_dict().keys() == {f"model.{k}" for k in state}
    with pytest.raises(InputError, match="weights missing"):
        backbone_from_state("RETFound", {k: v for k, v in PLAIN.items() if "norm1" not in k}, 32, 4)


def test_state_is_copied():
    state = {k: v.clone() for k, v in PLAIN.items()}
    backbone = backbone_from_state("RETFound", state, SIZE, HEADS)
    state["cls_token"].zero_()
    assert backbone.encoder.cls_token.abs().sum() > 0


OWN = {"backbone": "VisionFM", "image_size": 48, "num_heads": 6, "provenance": {"epochs": 3}}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_our_own_word_in_the_file(tmp_path, suffix):
    path = tmp_path / f"RETFound{suffix}"
    if suffix == ".pth":
        torch.save({"teacher": PLAIN, "retfiner": OWN}, path)
    else:
        save_file(PLAIN, path, {"retfiner": json.dumps(OWN)})
    backbone = load_backbone(path)
    assert (backbone.spec.name, backbone.image_size, backbone.num_heads) == ("VisionFM", 48, 6)
    assert backbone.provenance == {"epochs": 3, "weights_file": path.name}
    assert load_backbone(path, image_size=SIZE).image_size == SIZE
    with pytest.raises(InputError, match="another number of attention heads"):
        load_backbone(path, num_heads=4)


@pytest.mark.parametrize(
    "own",
    [
        "text",
        {"backbone": "VisionFM"},
        OWN | {"num_heads": "6"},
        OWN | {"backbone": "Unheard"},
        OWN | {"mean": [0.5, 0.5, 0.5]},
    ],
)
def test_our_own_word_that_makes_no_sense(tmp_path, own):
    path = saved(tmp_path / "VisionFM.pth", {"teacher": PLAIN, "retfiner": own})
    with pytest.raises(InputError):
        load_backbone(path)
