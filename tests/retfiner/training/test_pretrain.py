"""A base model from images alone; transformers' ViTMAE is the oracle of its renamed keys."""

import pytest
import torch

from retfiner.common.errors import InputError
from retfiner.training.pretrain import PretrainConfig, build_mae, load_images, pretrain, to_vit_keys
from retfiner.vision import load_backbone
from tests.helpers.image_files import as_deep, bscans, dicom, write_dicom, write_img
from tests.helpers.refinement import damage_in_the_middle, write_image

BLOCK = {  # plain ViT: transformers
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for index in range(6):
        write_image(
            folder / f"eye {index % 2}" / f"{index}.{('png', 'jpg', 'tif')[index % 3]}", index
        )
    return folder


def config(images, output, **changes):
    values = {"image_size": 32, "patch_size": 8, "width": 64, "depth": 2, "epochs": 2}
    return PretrainConfig(images=images, output=output, **(values | {"batch_size": 3} | changes))


def plain_vit(seed=0, width=64, depth=2):
    g = torch.Generator().manual_seed(seed)
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 17, width), "norm.weight": (width,),
              "norm.bias": (width,), "patch_embed.proj.weight": (width, 3, 8, 8),
              "patch_embed.proj.bias": (width,)}  # fmt: skip
    for i in range(depth):
        for name, rows, columns in (
            ("norm1", width, 0), ("norm2", width, 0), ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width), ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):  # fmt: skip
            shapes[f"blocks.{i}.{name}.weight"] = (rows, columns) if columns else (rows,)
            shapes[f"blocks.{i}.{name}.bias"] = (rows,)
    return {key: torch.randn(shape, generator=g) for key, shape in shapes.items()}


def as_transformers(plain):
    """Name a plain ViT as transformers does; written apart from the code under test."""
    state = {
        "vit.embeddings.cls_token": plain["cls_token"],
        "vit.embeddings.position_embeddings": plain["pos_embed"],
        "vit.embeddings.patch_embeddings.projection.weight": plain["patch_embed.proj.weight"],
        "vit.embeddings.patch_embeddings.projection.bias": plain["patch_embed.proj.bias"],
        "vit.layernorm.weight": plain["norm.weight"],
        "vit.layernorm.bias": plain["norm.bias"],
        "decoder.mask_token": torch.zeros(1, 1, 8),
        "decoder.decoder_layers.0.attention.attention.query.weight": torch.zeros(8, 8),
    }
    for i in range(2):
        for part in ("weight", "bias"):
            for ours, theirs in BLOCK.items():
                value = plain[f"blocks.{i}.{ours}.{part}"]
                state[f"vit.layers.{i}.{theirs}.{part}"] = value
            parts = plain[f"blocks.{i}.attn.qkv.{part}"].chunk(3)
            for name, value in zip("qkv", parts, strict=True):
                state[f"vit.layers.{i}.attention.{name}_proj.{part}"] = value
    return state


def test_keys_of_transformers_are_renamed():
    plain = plain_vit()
    renamed = to_vit_keys(as_transformers(plain))
    assert renamed.keys() == plain.keys()
    assert all(torch.equal(renamed[key], plain[key]) for key in plain)


def test_the_installed_transformers_has_these_names(images, tmp_path):
    state = build_mae(config(images, tmp_path / "x.pth")).state_dict()
    known = as_transformers(plain_vit())
    assert {key for key in state if key.startswith("vit.")} == {
        key for key in known if key.startswith("vit.")
    }


def test_the_renamed_encoder_computes_what_transformers_does(images, tmp_path):
    """No masking: every patch kept, in order; after the final norm."""
    torch.manual_seed(1)
    settings = config(images, tmp_path / "x.pth")
    model = build_mae(settings).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms that are not 0 and 1
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.config.mask_ratio = 0.0
    torch.save({"model": to_vit_keys(model.state_dict())}, tmp_path / "RETFound.pth")
    backbone = load_backbone(tmp_path / "RETFound.pth", image_size=32, num_heads=4)
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        noise = torch.arange(16.0).expand(3, 16)
        expected = model.vit(pixels, noise=noise).last_hidden_state
        found = backbone.fusion_tokens(pixels)
    assert found.shape == (3, 17, 64)
    assert (found - expected).abs().max() < 1e-5


def test_a_base_model_is_written_that_loads_as_retfound(images, tmp_path, capsys):
    output = tmp_path / "new folder" / "base.pth"
    pretrain(config(images, output, width=128))
    backbone = load_backbone(output)
    assert (backbone.spec.name, backbone.image_size, backbone.num_heads) == ("RETFound", 32, 4)
    assert (backbone.width, backbone.patch_size) == (128, 8)
    assert backbone.provenance["pretrained_by"] == "pretrain_base.py"
    assert all(v.isfinite().all() for v in backbone.encoder.state_dict().values())
    assert "Reconstruction loss" in capsys.readouterr().out


def test_training_lowers_the_loss(images, tmp_path, capsys):
    pretrain(config(images, tmp_path / "b.pth", epochs=15))
    words = capsys.readouterr().out.split()
    first, last = float(words[2]), float(words[4])
    assert last < 0.95 * first


def test_ten_steps_are_trained_as_well(images, tmp_path):
    """Six images in batches of three, five times: of ten steps the warm-up is one."""
    pretrain(config(images, tmp_path / "base.pth", epochs=5))
    assert (tmp_path / "base.pth").is_file()


def test_the_seed_decides_everything(images, tmp_path):
    states = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(3)  # what else was drawn does not count
        pretrain(config(images, tmp_path / f"{name}.pth", seed=seed, epochs=1))
        states.append(torch.load(tmp_path / f"{name}.pth", weights_only=False)["model"])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["pos_embed"], states[2]["pos_embed"]) or not torch.equal(
        states[0]["norm.weight"], states[2]["norm.weight"]
    )


def test_images_are_read_at_any_depth_in_8_bits(images):
    loaded = load_images(images, 16)
    assert loaded.shape == (6, 1, 16, 16)
    assert loaded.dtype == torch.uint8
    assert loaded.float().std() > 10


def test_every_bscan_of_a_volume_is_read_in_order(tmp_path):
    write_image(tmp_path / "a.png", 0)
    volume = as_deep(bscans(5))
    write_dicom(tmp_path / "b" / "IM0001", dicom(volume))
    write_img(tmp_path / "c_40x5.img", volume)
    loaded = load_images(tmp_path, 16)
    assert loaded.shape == (11, 1, 16, 16)
    assert torch.equal(loaded[1:6], loaded[6:])
    assert len({tuple(image.flatten().tolist()) for image in loaded[1:6]}) == 5


def test_too_few_images(tmp_path):
    with pytest.raises(InputError, match=r"too few images.*\n.*no such folder"):
        load_images(tmp_path / "nowhere", 16)
    with pytest.raises(InputError, match=r"too few images.*\n.*0"):
        load_images(tmp_path, 16)
    write_image(tmp_path / "a.png", 0)
    with pytest.raises(InputError, match=r"too few images.*\n.*1"):
        load_images(tmp_path, 16)


def test_a_broken_image_is_left_out_and_named(tmp_path, capsys):
    for index in range(3):
        write_image(tmp_path / f"{index}.png", index)
    whole = load_images(tmp_path, 16)
    damage_in_the_middle(tmp_path / "1.png")
    assert torch.equal(load_images(tmp_path, 16), whole[[0, 2]])
    assert "1 of 3 files cannot be read and are left out" in capsys.readouterr().out
    damage_in_the_middle(tmp_path / "2.png")
    with pytest.raises(InputError, match=r"too few images\s+got: +1 of 3 files; .*1\.png"):
        load_images(tmp_path, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 100}, "cannot be built"),
        ({"image_size": 30}, "cannot be built"),
        ({"output": "x.safetensors"}, "--output cannot be used"),
    ],
)
def test_sizes_that_do_not_go_together(images, tmp_path, changes, message):
    output = tmp_path / changes.pop("output", "x.pth")
    with pytest.raises(InputError, match=message):
        pretrain(config(images, output, **changes))
    assert not output.exists()
