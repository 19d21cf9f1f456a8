"""All that runs on a GPU, rehearsed without one; and that the rehearsal finds what it is for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from linprobe.config import ProbeConfig
from linprobe.features import Extractor
from linprobe.probes.head import TrainingSet, train_heads
from linprobe.probes.linear import head_settings
from linprobe.store import FeatureStore
from retfiner.common.errors import InputError
from retfiner.common.seeds import generator
from retfiner.text.generation import Decoding, SpecialTokens, write_reports
from retfiner.text.packing import packing_of
from retfiner.training.adaptation import checkpoint_activations
from retfiner.training.checkpoint_io import require_finite
from retfiner.training.module import RefinementModule
from retfiner.vision.adaptation import add_lora
from tests.helpers.pretend_cuda import PretendCuda
from tests.helpers.small import random_batch, small_backbone, small_model

ALL = {"itc": 1.0, "itm": 1.0, "mlm": 1.0, "gm": 1.0}
SPECIAL = SpecialTokens(start=2, end=3, mask=4, pad=0, never=(2, 4, 0, 1))


@pytest.fixture
def gpu():
    with PretendCuda().here() as pretended:
        yield pretended


def make_module(gpu, change=None, itm="hard", compact=False, **options):
    with torch.no_grad():
        model = small_model(**options).float()
    if change is not None:
        change(model)
    gpu.send(model)
    module = RefinementModule(
        model, ALL, {"itm": {"negatives": itm}}, compact_states=compact, augment=True
    )
    module.log = module.log_dict = lambda *_, **__: None
    return module


def batch_there(gpu):
    batch = random_batch()
    batch = batch._replace(images=batch.images.float())
    moved = batch._replace(**{n: v.to("cuda") for n, v in batch._asdict().items() if _moves(v)})
    gpu.waits.clear()
    return moved


def _moves(value):
    return isinstance(value, Tensor)


def mixed(kind=torch.bfloat16):
    return torch.autocast("cuda", kind)


def optimiser_of(module, clips=False, scaler=None):
    module.trainer = SimpleNamespace(
        estimated_stepping_batches=10,
        precision_plugin=SimpleNamespace(scaler=scaler),
        gradient_clip_val=1.0 if clips else None,
        current_epoch=0,
        global_step=0,
    )
    return module.configure_optimizers()["optimizer"]


WAYS = {
    "as published": {},
    "checkpointed": {"change": checkpoint_activations},
    "in chunks": {"chunk_size": 3},
    "compact moments": {"compact": True},
    "low-rank": {"change": lambda model: add_lora(model.vision_encoder, 2, 1.0)},
    "sigmoid": {"contrast": "sigmoid"},
    "other choices": {"itm": "uniform", "duplicate_reports": "similar", "redraw_masks": True},
}


@pytest.mark.parametrize(
    "way", ["as published", *(pytest.param(w, marks=pytest.mark.slow) for w in list(WAYS)[1:])]
)
def test_steps_train_everything_and_wait_for_nothing(gpu, way):
    module = make_module(gpu, **WAYS[way])
    optimiser = optimiser_of(module, clips=True)
    batch = batch_there(gpu)
    for number in range(2 if way == "as published" else 1):  # the second looks at the first
        with mixed():
            loss = module.training_step(batch, number)
        gpu.backward(loss)
        module.on_before_optimizer_step(optimiser)
        module.configure_gradient_clipping(optimiser, 1.0)
        assert optimiser.found_inf.device.type == "cuda"
        optimiser.step()
        module.on_train_batch_end(None, batch, number)
    assert not gpu.waits
    trained = {name: p for name, p in module.model.named_parameters() if p.requires_grad}
    assert not [name for name, p in trained.items() if p.grad is None]
    assert all(p.grad.dtype == torch.float32 for p in trained.values())


@pytest.mark.slow
def test_float16_waits_for_nothing_either(gpu):
    module, scaler = make_module(gpu), torch.amp.GradScaler("cuda")
    optimiser = optimiser_of(module, scaler=scaler)
    batch = batch_there(gpu)
    with mixed(torch.float16):
        loss = module.training_step(batch, 0)
    gpu.backward(scaler.scale(loss))
    module.on_before_optimizer_step(optimiser)
    scaler.step(optimiser)
    scaler.update()
    assert not gpu.waits


def test_reports_are_packed_where_half_of_them_is_padding(gpu):
    there, here = torch.device("cuda"), torch.device("cpu")
    assert packing_of([4, 8, 6], 8, there) is None
    assert packing_of([4, 8, 6], 8, here).words.tolist() == [*range(4), *range(8, 22)]
    packed = packing_of([2, 8, 2], 8, there)
    assert (packed.words.device.type, packed.words.shape) == ("cuda", (12,))
    assert packing_of([8, 8], 8, here) is None
    assert not gpu.waits


def test_validation(gpu):
    module = make_module(gpu)
    optimiser_of(module)
    batch = batch_there(gpu)
    with torch.no_grad(), mixed():
        module.validation_step(batch, 0)
        module.on_validation_epoch_end()
        assert module.probing_features(batch.images).device.type == "cuda"
    assert gpu.waits, "figures are read"


@pytest.mark.parametrize("method", ["greedy", "beam", "nucleus"])
def test_reports_are_written(gpu, method):
    model = make_module(gpu).model.eval()
    text = model.multimodal_encoder
    generators = [generator(row) for row in range(6)]
    with torch.no_grad(), mixed():
        image = text.project_image(model.encode_images(batch_there(gpu).images))
        written = write_reports(text, image, SPECIAL, 6, Decoding(method), generators)
    assert len(written.tokens) == 6


def test_features_and_heads(gpu, tmp_path):
    backbone = small_backbone()
    store = FeatureStore(tmp_path / "features")
    extractor = Extractor(backbone, "concat_prenorm", store, device=torch.device("cpu"))
    gpu.send(backbone.encoder)
    extractor.device = torch.device("cuda")
    features = extractor.encode(torch.randn(12, 3, 32, 32))
    assert features.device.type == "cuda"
    labels = torch.arange(12) % 3
    table = (features.clone(), torch.arange(12))
    sets = [TrainingSet(labels, lambda *_: table, generator(seed)) for seed in range(2)]
    config = ProbeConfig(init_weights=Path("base.pth"), epochs=2, warmup_epochs=1)
    numbers = head_settings(config, "UrFound")
    heads = train_heads(sets, table[0], labels, 3, 4, numbers)
    assert heads[0].weight.device.type == "cuda"


class Mistaken(nn.Module):
    """A layer with one mistake."""

    def __init__(self, mistake):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.mistake = mistake

    def forward(self, x):
        return self.mistake(self.linear(x))


MISTAKES = {
    "a tensor left behind": (lambda x: x + torch.ones(4), "CPU's tensor .* meets the GPU"),
    "a generator left behind": (
        lambda x: x.clone().exponential_(generator=torch.Generator()),
        "CPU's generator",
    ),
    "types that clash": (lambda x: x.float() @ x.bfloat16().T, "types clash"),
    "an index by truth": (lambda x: x[x > 0], "index by truth"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(gpu, name):
    mistake, message = MISTAKES[name]
    layer = Mistaken(mistake)
    gpu.send(layer)
    with pytest.raises(RuntimeError, match=message):
        layer(torch.zeros(2, 4, device="cuda"))


@pytest.mark.parametrize(
    "asks",
    [
        lambda x: x.sum().item(),
        lambda x: x.cpu(),
        lambda x: x.tolist(),
        lambda x: bool((x > 0).any()),
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: x + torch.ones(4).to(x),
        lambda x: x[torch.tensor([0])],
    ],
)
def test_what_waits_is_counted(gpu, asks):
    there = torch.zeros(2, 4, device="cuda")
    gpu.waits.clear()
    asks(there)
    assert gpu.waits


def test_a_copy_that_does_not_block_is_no_wait(gpu):
    there = torch.zeros(4).to("cuda", non_blocking=True)
    torch.empty(4).copy_(there, non_blocking=True)
    assert not gpu.waits


def test_the_walk_backward_is_that_of_torch():
    """Beside ``loss.backward()`` on the CPU, checkpoints and shared weights included."""
    module = RefinementModule(small_model(), ALL)
    checkpoint_activations(module.model)
    batch = random_batch()
    found = []
    for walk in (lambda loss: loss.backward(), PretendCuda().backward):
        torch.manual_seed(0)
        values, _ = module._batch_losses(batch, "train", 0, 0)
        module.zero_grad()
        walk(module._weighted_sum(values))
        found.append({name: p.grad.clone() for name, p in module.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-9, atol=1e-12)


def test_a_copy_that_can_be_read_before_it_is_there_is_an_error(gpu):
    with pytest.raises(RuntimeError, match="before it is there"):
        torch.zeros(4, device="cuda").to("cpu", non_blocking=True)


def test_a_checkpoint_is_looked_at_once_a_device_and_to_the_end(gpu):
    module = make_module(gpu)
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2, device="cuda")}}
    gpu.waits.clear()
    state = {"state_dict": module.state_dict(), "optimizer_states": [{"state": moments}]}
    require_finite(state, Path("last.ckpt"))
    assert sum(gpu.waits.values()) == 1
    moments[0]["step"] = torch.tensor(float("nan"))
    with pytest.raises(InputError, match=r"1 of .* tensors: step of parameter 0"):
        require_finite(state, Path("last.ckpt"))
