"""Every kind of backbone, every way of training: two steps each, of small models."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from torch import Tensor

from linprobe.probing import run_sweep
from retfiner.common.errors import InputError
from retfiner.export.config import ExtractConfig
from retfiner.export.extract import extract
from retfiner.refine import build, read_tables, refine
from retfiner.vision import load_backbone
from retfiner.vision.timm_vit import timm_spec
from tests.helpers.forks import forking
from tests.helpers.probing_data import small_probe
from tests.helpers.refinement import column, make_material, settings
from tests.retfiner.vision import layouts

PLAIN, SCALED = layouts.vit(), layouts.vit(layer_scale=True)
KINDS = {
    "RETFound": layouts.mae(PLAIN),
    "UrFound": layouts.urfound(PLAIN),
    "VisionFM": layouts.visionfm(PLAIN, PLAIN),
    "MAE": layouts.mae(PLAIN),
    "MIRAGE": layouts.mirage(layouts.mirage_state()),
    "RETFound-DINOv2": layouts.retfound_dinov2(SCALED),
    "RETFound-Green": layouts.green(),
    "RETFound-DINOv3": layouts.retfound_dinov3(layouts.dinov3()),
    "DINOv3": layouts.dinov3(gated=True),
    "EyeCLIP": layouts.eyeclip(layouts.clip_visual()),
    "OCTCube": layouts.octcube_published(layouts.octcube()),
    "Uni4Eye++": layouts.uni4eye(PLAIN),
    "timm/vit_tiny_patch16_224": None,
    "timm/vit_small_patch16_dinov3_qkvb": None,
    "timm/vit_small_patch14_reg4_dinov2": None,
}
WAYS = {
    "all": {"layer_decay": 0.7, "gradient_checkpointing": True},
    "lora": {"lora_rank": 2, "optimizer_states": "bfloat16"},
    "last": {"unfreeze_last": 1},
    "frozen": {"unfreeze_last": 0},
    "contrast": {"losses": ["itc"]},
    "captions": {"losses": ["mlm", "gm"]},
}
LOSSES = ("itc", "itm", "mlm", "gm")


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    material = make_material(tmp_path_factory.mktemp("material"), pairs=12, patients=6)
    path = material.text_encoder / "config.json"  # without dropout, numbers can be compared
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    path.write_text(json.dumps(json.loads(path.read_text()) | without))
    return material


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    with forking(tmp_path_factory.mktemp("forks") / "log") as forks:
        yield forks


@pytest.fixture(params=KINDS)
def run(request, material, tmp_path):
    """Give a function that makes the settings of a run of two steps."""
    kind, path, size = request.param, tmp_path / "base.pth", layouts.SIZE
    content = KINDS[kind]
    if content is None:
        size = 28 if "patch14" in kind else 32
        torch.manual_seed(0)
        model = timm.create_model(kind.removeprefix("timm/"), img_size=size, num_classes=0)
        content, heads = model.state_dict(), model.blocks[0].attn.num_heads
    else:
        heads = layouts.HEADS
    about = {"backbone": kind, "image_size": size, "num_heads": heads, "provenance": {}}
    torch.save({**content, "retfiner": about}, path)
    small = {"model_weights": path, "max_epochs": 1, "batch_size": 4}
    return lambda **changes: settings(material, tmp_path / "models", **(small | changes))


def read(config) -> dict[str, Tensor]:
    return load_backbone(config.model_weights).encoder.state_dict()


@pytest.mark.parametrize("way", WAYS)
def test_what_trains_gets_a_gradient_of_each_step(run, way):
    """And nothing else trains: processes would wait for it, and weight decay would shrink it."""
    config = run(**WAYS[way])
    parts = build(config, read_tables(config))
    module, batches = parts.module.train(), parts.batches
    batches.setup("fit")
    model = module.model
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    loader = iter(batches.train_dataloader())
    for step in range(2):
        batch = batches.join(next(loader))
        encoded = model.encode(batch, module.uses_similarity, module.uses_fusion)
        losses = module._losses_of(batch, encoded, "train", 0, step)
        optimizer.zero_grad()
        module._weighted_sum(losses).backward()
        without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []
        optimizer.step()
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.slow
def test_one_process_goes_on_is_extracted_and_probed(run, tmp_path):
    config = run(**WAYS["all"])
    folder = refine(config).folder
    assert refine(run(**WAYS["all"], max_epochs=2, resume=folder)).folder == folder
    assert len(column(folder, "val/loss")) == 3  # before training, and after each epoch
    refined = tmp_path / "refined.pth"
    extract(ExtractConfig(path_to_model=folder / "last.ckpt", output=refined))
    base, weights = read(config), load_backbone(refined).encoder.state_dict()
    assert base.keys() == weights.keys()
    assert any(not weights[key].equal(base[key]) for key in base)
    probed = {"init_weights": config.model_weights, "ft_weights": refined, "probe": "knn"}
    run_sweep(small_probe(tmp_path / "probing", **probed, seed=[0], views=None))
    assert list((tmp_path / "probing" / "results").rglob("*.csv"))


@pytest.mark.slow
def test_two_processes_train_what_one_does(run, forks, tmp_path):
    """With copied and with split weights: the losses after two steps are those of one process."""
    alone = refine(run(batch_size=8, max_epochs=2, note="one")).folder
    for strategy in ("ddp", "fsdp"):
        config = run(devices="2", strategy=strategy, max_epochs=2, note=strategy)
        assert forks.run_together(config, 2) == [0, 0], forks.log.read_text()[-3000:]
    folders = sorted((tmp_path / "models").iterdir())
    assert len(folders) == 3
    expected = column(alone, "val/loss")
    for folder in folders:
        assert column(folder, "val/loss") == pytest.approx(expected, rel=2e-3), folder.name


@pytest.mark.parametrize(
    "model", ["vit_base_patch16_siglip_224", "vit_betwixt_patch16_reg1_gap_256"]
)
def test_timm_without_a_class_token_is_named(model):
    with pytest.raises(InputError, match="no class token"):
        timm_spec(f"timm/{model}")
