"""What trains of the vision encoder, how fast, and what comes back out of it."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from retfiner.common.errors import InputError
from retfiner.config import RefineConfig
from retfiner.export.extract import ExtractConfig, extract
from retfiner.refine import refine
from retfiner.text.reading import Reading
from retfiner.training.adaptation import checkpoint_activations
from retfiner.vision import backbone_from_state, load_backbone
from retfiner.vision.adaptation import (
    add_lora,
    layers_of,
    merge_lora,
    set_drop_path,
    unfreeze_last,
    vision_groups,
)
from retfiner.vision.mirage import MirageEncoder
from tests.helpers.refinement import column, make_material, settings
from tests.helpers.small import fill, random_batch, small_model, small_vit
from tests.retfiner.vision import layouts

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"))


def trainable(module):
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def encoder_of(path):
    content = torch.load(path, weights_only=True)
    found = content["state_dict"] if "state_dict" in content else content["model"]
    return {k.removeprefix("model.vision_encoder."): v for k, v in found.items()}


def mirage(depth=2):
    return MirageEncoder(width=48, depth=depth, heads=4, patch=8, image_size=32)


@pytest.mark.parametrize(
    ("encoder", "layers"),
    [
        (
            small_vit(depth=12),
            {
                "patch_embed.proj.weight": 0,
                "cls_token": 0,
                "pos_embed": 0,
                "blocks.0.attn.proj.weight": 1,
                "blocks.11.mlp.fc1.bias": 12,
                "norm.weight": 12,
            },
        ),
        (
            mirage(depth=4),
            {
                "model.global_tokens": 0,
                "model.input_adapters.bscan.proj.weight": 0,
                "model.encoder.0.attn.qkv.weight": 1,
                "model.encoder.3.norm1.weight": 4,
            },
        ),
        (
            VisionTransformer(
                img_size=32,
                patch_size=8,
                embed_dim=48,
                depth=2,
                num_heads=4,
                num_classes=0,
                reg_tokens=4,
                init_values=1e-5,
            ),
            {"reg_token": 0, "cls_token": 0, "blocks.1.ls1.gamma": 2},
        ),
        (
            backbone_from_state("DINOv3", layouts.dinov3(), 32, 4).encoder,
            {"reg_token": 0, "blocks.0.gamma_1": 1, "blocks.1.attn.q_bias": 2, "norm.bias": 2},
        ),
        (
            backbone_from_state("EyeCLIP", layouts.clip_visual(), 32, 4).encoder,
            {"norm_pre.weight": 0, "blocks.0.norm1.weight": 1, "norm.weight": 2},
        ),
    ],
)
def test_layers_are_told_by_name(encoder, layers):
    found = layers_of(encoder)
    assert found.keys() == dict(encoder.named_parameters()).keys()
    assert {name: found[name] for name in layers} == layers


def test_the_last_blocks_and_what_follows_them_train():
    encoder = small_vit(depth=3)
    unfreeze_last(encoder, 2)
    kept = {
        n for n, _ in encoder.named_parameters() if n.startswith(("blocks.1", "blocks.2", "norm."))
    }
    assert trainable(encoder) == kept
    unfreeze_last(encoder, 0)
    assert not trainable(encoder)
    with pytest.raises(InputError, match=r"more than there are blocks[\s\S]*4[\s\S]*at most 3"):
        unfreeze_last(encoder, 4)


def test_all_blocks_are_the_whole_encoder_and_no_more():
    """MIRAGE's positions are sines and cosines; a frozen encoder is thawed as a new one trains."""
    for encoder in (small_vit(depth=3), MirageEncoder(width=48, depth=3, heads=4)):
        whole = trainable(encoder)
        unfreeze_last(encoder.requires_grad_(False), 3)
        assert trainable(encoder) == whole


def test_learning_rates_fall_from_layer_to_layer():
    encoder = small_vit(depth=3)
    groups = vision_groups(encoder, lr=1.0, decay=0.5)
    assert [group["lr"] for group in groups] == [0.125, 0.25, 0.5, 1.0]
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    assert sum(sizes) == sum(p.numel() for p in encoder.parameters())
    assert sizes[1] == sizes[2] < sizes[3]  # the final norm goes with the last block


def gated_dinov3():
    """Attention with biases of its own, and three matrices an MLP."""
    return backbone_from_state("DINOv3", layouts.dinov3(gated=True), 32, 4).encoder


@pytest.mark.parametrize(("make", "matrices"), [(small_vit, 4), (gated_dinov3, 5)])
def test_lora_starts_as_the_base_model_and_merges_into_what_it_computes(make, matrices):
    torch.manual_seed(0)
    encoder, images = make().double(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    fill(encoder)
    keys, before = set(encoder.state_dict()), encoder.forward_features(images)
    add_lora(encoder, rank=4, scale=3.0)
    assert torch.equal(encoder.forward_features(images), before)
    assert all("lora_" in name for name in trainable(encoder))
    # qkv, proj, fc1 (of a gated MLP, two of them), fc2
    assert len(trainable(encoder)) == 2 * 2 * matrices
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    after = encoder.forward_features(images)
    assert not torch.allclose(after, before)
    after.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters() if p.requires_grad)
    merged = merge_lora(encoder.state_dict(), scale=3.0)
    assert set(merged) == keys
    plain = make().double()
    plain.load_state_dict(merged)
    torch.testing.assert_close(plain.forward_features(images), after, rtol=1e-10, atol=1e-10)


def test_drop_path_is_that_of_a_model_which_timm_builds_with_it():
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 4}
    ours, theirs = (
        VisionTransformer(**sizes, num_classes=0, global_pool="", init_values=1e-1, **rate)
        for rate in ({}, {"drop_path_rate": 0.6})
    )
    keys = list(ours.state_dict())
    set_drop_path(ours, 0.6)
    assert list(ours.state_dict()) == keys
    rates = [getattr(b.drop_path2, "drop_prob", 0.0) for b in ours.blocks]
    assert rates == pytest.approx([0.0, 0.2, 0.4, 0.6])
    for encoder in (ours, theirs):
        fill(encoder)
    images, outputs = torch.randn(16, 3, 32, 32), []
    for encoder in (ours.train(), theirs.train()):
        torch.manual_seed(5)
        outputs.append(encoder(images))
    assert torch.equal(*outputs)
    assert not torch.allclose(outputs[0], ours.eval()(images))


@pytest.mark.parametrize(("make", "channels"), [(small_vit, 3), (mirage, 1)])
def test_drop_path_leaves_layers_out_image_by_image_and_only_in_training(make, channels):
    """An image whose last block is left out has the tokens that enter it; others are scaled up."""
    encoder = make(depth=2)
    fill(encoder)
    images = torch.randn(400, channels, 32, 32)
    plain = encoder.eval()(images)
    keys = list(encoder.state_dict())
    set_drop_path(encoder, 0.5)
    assert list(encoder.state_dict()) == keys
    state = torch.get_rng_state()
    for one, two in zip(plain, encoder(images), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn in evaluation"
    seen = {}
    encoder.blocks[-1].register_forward_hook(lambda _, given, made: seen.update(x=given[0], y=made))
    torch.manual_seed(0)
    encoder.train()(images)
    untouched = (seen["x"] == seen["y"]).flatten(1).all(1).float().mean().item()
    # both halves of the last block: 0.5 x 0.5, four standard errors of 400 images
    assert untouched == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 400) ** 0.5)


def test_blocks_without_a_place_for_drop_path_are_refused():
    encoder = torch.nn.Module()
    encoder.blocks = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"--drop_path does not fit[\s\S]*Linear[\s\S]*timm's"):
        set_drop_path(encoder, 0.1)


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_checkpointed_activations_give_the_same_gradients(drop_path):
    gradients = []
    for again in (False, True):
        model = small_model().train()
        if drop_path:
            set_drop_path(model.vision_encoder, drop_path)
        if again:
            checkpoint_activations(model)
        torch.manual_seed(3)  # dropout draws the same in both
        encoded = model.encode(random_batch())
        batch = random_batch()
        hidden = model.fuse(batch, encoded, [Reading(batch.input_ids, batch.attention_mask)])[0]
        (hidden.square().mean() + encoded.similarity.square().mean()).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


@pytest.mark.parametrize(("make", "channels"), [(small_vit, 3), (mirage, 1)])
def test_checkpointing_keeps_less_for_the_backward_pass(make, channels):
    kept = []
    for again in (False, True):
        encoder = make(depth=4)
        if again:
            encoder.set_grad_checkpointing()
        sizes: list[int] = []

        def note(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            encoder(torch.randn(2, channels, 32, 32))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 4


def test_frozen_blocks_come_out_of_a_run_byte_for_byte(material, tmp_path):
    result = refine(settings(material, tmp_path, unfreeze_last=1, max_epochs=1))
    before, after = encoder_of(material.weights), encoder_of(result.folder / "best-model.ckpt")
    moved = {name for name in trainable(small_vit()) if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith("blocks.1.")} | {
        "norm.weight",
        "norm.bias",
    }


def test_layer_decay_moves_early_layers_less(material, tmp_path):
    result = refine(settings(material, tmp_path, layer_decay=0.01, max_epochs=1, weight_decay=0.0))
    before, after = encoder_of(material.weights), encoder_of(result.folder / "best-model.ckpt")

    def moved(name):
        return (after[name] - before[name]).abs().mean()

    name = "mlp.fc1.weight"
    assert moved("patch_embed.proj.weight") < moved(f"blocks.0.{name}") / 10
    assert moved(f"blocks.0.{name}") < moved(f"blocks.1.{name}") / 10


def test_lora_runs_resume_and_extract_as_a_plain_backbone(material, tmp_path):
    result = refine(settings(material, tmp_path, lora_rank=2, max_epochs=1))
    settings_again = settings(
        material, tmp_path, lora_rank=2, max_epochs=2, resume=result.folder / "last.ckpt"
    )
    assert refine(settings_again).folder == result.folder
    output = extract(
        ExtractConfig(result.folder / "best-model.ckpt", output=tmp_path / "refined.pth")
    )
    refined, base = load_backbone(output), load_backbone(material.weights)
    assert set(refined.encoder.state_dict()) == set(base.encoder.state_dict())
    after, before = refined.encoder.state_dict(), base.encoder.state_dict()
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved == {
        f"blocks.{k}.{part}.weight"
        for k in (0, 1)
        for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    images = torch.randn(2, 3, 32, 32)
    tuned = load_tuned(result.folder / "best-model.ckpt", images)
    torch.testing.assert_close(refined.fusion_tokens(images), tuned, rtol=1e-4, atol=1e-5)


def load_tuned(path, images):
    """Run the encoder of a LoRA checkpoint as peft runs it, without merging."""
    content = torch.load(path, weights_only=True)
    encoder = small_vit()
    add_lora(encoder, 2, 2.0)
    encoder.load_state_dict(encoder_of(path), strict=False)
    assert content["retfiner"]["lora_scale"] == 2
    return encoder.eval().forward_features(images)


def test_gradient_checkpointing_changes_no_number_of_a_run(material, tmp_path):
    runs = [
        refine(settings(material, tmp_path / str(on), gradient_checkpointing=on, max_epochs=1))
        for on in (False, True)
    ]
    assert runs[0].best == pytest.approx(runs[1].best, rel=1e-5)


def test_drop_path_changes_training_alone_and_goes_on_to_the_bit(material, tmp_path):
    plain = refine(settings(material, tmp_path / "plain", max_epochs=1))
    whole = refine(settings(material, tmp_path / "whole", drop_path=0.5, max_epochs=2))
    assert whole.before == plain.before
    assert column(whole.folder, "train/loss")[0] != column(plain.folder, "train/loss")[0]
    half = refine(settings(material, tmp_path / "half", drop_path=0.5, max_epochs=1)).folder
    refine(settings(material, tmp_path, drop_path=0.5, max_epochs=2, resume=half))
    expected, found = (
        torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (whole.folder, half)
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    base = torch.load(plain.folder / "last.ckpt", weights_only=True)["state_dict"]
    assert found.keys() == base.keys()


def test_a_fixed_temperature_stays_to_the_bit(material, tmp_path):
    folder = refine(settings(material, tmp_path, fixed_temp=True, max_epochs=1)).folder
    content = torch.load(folder / "last.ckpt", weights_only=True)
    assert content["state_dict"]["model.contra_temp"].item() == torch.tensor(0.07).item()
    groups = content["optimizer_states"][0]["param_groups"]
    assert "temperature" not in [group["name"] for group in groups]
    assert column(folder, "val/itc")[0] != column(folder, "val/itc")[1]


@pytest.mark.slow
def test_compiled_encoders_give_the_numbers_of_plain_ones(material, tmp_path):
    runs = [
        refine(settings(material, tmp_path / str(on), compile=on, max_epochs=1))
        for on in (False, True)
    ]
    assert runs[0].before == pytest.approx(runs[1].before, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora_alpha": 4}, "goes with --lora_rank"),
        ({"lora_rank": 2, "unfreeze_last": 1}, "do not go together"),
        ({"lora_rank": 2, "layer_decay": 0.5}, "frozen encoder"),
        ({"unfreeze_last": 0, "layer_decay": 0.5}, "frozen encoder"),
        ({"vision_lr": 0.0, "layer_decay": 0.5}, "frozen encoder"),
        ({"vision_lr": 0.0, "lora_rank": 2}, "--vision_lr 0 freezes.*\n.*--lora_rank"),
        ({"vision_lr": 0.0, "unfreeze_last": 1}, "--vision_lr 0 freezes.*\n.*--unfreeze_last"),
        ({"layer_decay": 1.5}, "is a share"),
        ({"fusion_warmup_steps": 9, "losses": ["mlm"]}, "nothing to learn from\n.*mlm"),
        (
            {"fusion_warmup_steps": 9, "losses": ["mlm"], "unfreeze_last": 0},
            "leave it out, or give itc a weight",
        ),
        (
            {"fusion_warmup_steps": 9, "loss_weights": [0.0, 1.0, 1.0, 1.0]},
            "nothing to learn from\n.*weight 0 for itc",
        ),
        ({"pooling": "mean"}, "--pooling without effect"),
        ({"slices": "random", "max_slices": 4}, "--slices and --max_slices without effect"),
        ({"drop_path": 1.0}, "probability"),
        ({"fixed_temp": True, "exponential_temp": True}, "--exponential_temp has no effect"),
        ({"fixed_temp": True, "losses": ["itm", "gm"]}, "--fixed_temp has no effect"),
        ({"redraw_masks": True, "losses": ["itc"]}, "--redraw_masks without effect"),
        ({"random_token_from": 106, "losses": ["itm"]}, "--random_token_from without effect"),
    ],
)
def test_settings_that_do_not_go_together(changes, words):
    with pytest.raises(InputError, match=words):
        RefineConfig(model_weights="w", train_csv="c", **changes)
