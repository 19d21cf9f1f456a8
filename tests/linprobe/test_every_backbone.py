"""Every kind of backbone under the probes that see more than its features."""

import numpy as np
import pytest
import timm
import torch

from linprobe.datasets import read_data_set
from linprobe.probes.finetune import Finetuning
from linprobe.probing import Sweep, run_sweep
from linprobe.task import ProbingTask
from linprobe.weights import candidates
from tests.helpers.probing_data import small_probe
from tests.retfiner.test_every_backbone import KINDS
from tests.retfiner.vision import layouts


@pytest.fixture(params=KINDS)
def probe_of(request, tmp_path):
    """Give a function that makes the settings of a probe of a small model of this kind."""
    kind, size, content, heads = request.param, layouts.SIZE, KINDS[request.param], layouts.HEADS
    if content is None:
        size = 28 if "patch14" in kind else 32
        torch.manual_seed(0)
        model = timm.create_model(kind.removeprefix("timm/"), img_size=size, num_classes=0)
        content, heads = model.state_dict(), model.blocks[0].attn.num_heads
    about = {"backbone": kind, "image_size": size, "num_heads": heads, "provenance": {}}

    def build(**changes):
        config = small_probe(tmp_path, views=None, seed=[0], **changes)
        torch.save({**content, "retfiner": about}, config.init_weights)
        return config

    return build


def test_its_patch_tokens_are_pooled(probe_of):
    config = probe_of(probe="attentive", attention_epochs=2, attention_lr=[1e-3])
    _, [summary] = run_sweep(config)
    assert 0 <= summary.scores[0] <= 1


@pytest.mark.parametrize("adapt", ["full", "last", "lora"])
def test_it_is_fine_tuned(probe_of, adapt):
    chosen = {"unfreeze_last": 1} if adapt == "last" else {}
    config = probe_of(probe="finetune", adapt=adapt, finetune_epochs=2, finetune_warmup=1, **chosen)
    sweep = Sweep(config, candidates(config)[0])
    data = read_data_set(config.data_root / "OCTID")
    tuning = Finetuning(ProbingTask(data, sweep.extractor, config), 0, np.arange(8))
    tuning._epoch(1)
    tuning._epoch(2)
    assert len(tuning.watch.curve) == 2 and tuning.watch.best_epoch
