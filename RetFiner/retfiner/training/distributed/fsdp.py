"""Weights, gradients and optimiser states split over devices (torch's FSDP2).

Each process holds its share of every weight. A block's weights are gathered where it computes and
let go of behind it, backward as well; gradients are averaged and go back as shares. What is no
block (embeddings, heads, norms) is gathered for the whole step. Numbers are those of data-parallel
training, and so are the checkpoints: whole tensors, written by the first process.

Lightning's own strategies for this ask for GPUs and cannot hold the temperature, a parameter
without dimensions, as published checkpoints have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from lightning_fabric.utilities.optimizer import _optimizers_to_device
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard
from torch.optim.optimizer import Optimizer

from retfiner.model import RetFiner
from retfiner.training.distributed.collectives import (
    all_reduce_mean,
    broadcast_parameters,
    world_size,
)

STEPS = ("training_step", "validation_step", "probing_features")
"""What Lightning calls of a module where its weights are needed."""
_LAYER_METHODS = ("read", "project_image")
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)
"""Gather to main memory of the first process; the others let go of each tensor at once."""


class ShardedStrategy(DDPStrategy):
    """Lightning's data-parallel training, with weights that are split instead of copied."""

    def setup(self, trainer: pl.Trainer) -> None:
        """Split the model before its optimiser is made; once, also if validation comes first."""
        assert self.accelerator is not None and self.lightning_module is not None
        self.accelerator.setup(trainer)
        if not isinstance(self.lightning_module, FSDPModule):
            mesh = init_device_mesh(self.root_device.type, (world_size(),))
            shard(self.lightning_module, self.lightning_module.model, STEPS, mesh)
            self.model_to_device()  # the temperature
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if trainer.state.fn == TrainerFn.FITTING:
            _optimizers_to_device(self.optimizers, self.root_device)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Average the gradients of what is not split."""
        assert self.lightning_module is not None
        average_gradients(self.lightning_module)

    def teardown(self) -> None:
        """Let go of what a stage holds; weights stay where they are, for the one that follows."""
        assert self.accelerator is not None and self.cluster_environment is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()
        self.checkpoint_io.teardown()

    # -- checkpoints -------------------------------------------------------------------------------

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return whole weights in the first process, nothing in the others."""
        assert self.lightning_module is not None
        whole = get_model_state_dict(self.lightning_module, options=WHOLE)
        first: dict[nn.Parameter, str] = {}
        for name, parameter in self.lightning_module.named_parameters(remove_duplicate=False):
            if whole:  # tied weights are gathered for each of their names, and one in a file
                whole[name] = whole[first.setdefault(parameter, name)]
        return whole

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return whole states in the first process, nothing in the others.

        Parameters are numbered, as one device writes them; torch knows them by name here.
        """
        assert self.lightning_module is not None
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        module: Any = self.lightning_module
        named: Any = get_optimizer_state_dict(module, optimizer, options=WHOLE)
        if not self.is_global_zero:
            return {}
        names = [name for group in named["param_groups"] for name in group["params"]]
        return _renamed(named, dict(zip(names, range(len(names)), strict=True)))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's share of whole states.

        Weights are read before they are split, as Lightning does it.
        """
        assert self.lightning_module is not None
        name_of = {p: name for name, p in self.lightning_module.named_parameters()}
        (optimizer,), (content,) = self.optimizers, checkpoint["optimizer_states"]
        ours = [name_of[p] for group in optimizer.param_groups for p in group["params"]]
        numbers = [number for group in content["param_groups"] for number in group["params"]]
        named = _renamed(content, dict(zip(numbers, ours, strict=True)))
        set_optimizer_state_dict(self.lightning_module, optimizer, named, options=WHOLE)


def _renamed(content: Mapping[str, Any], new: Mapping[Any, Any]) -> dict[str, Any]:
    """Know the parameters of an optimiser's state by other names or numbers."""
    return {
        "state": {new[key]: state for key, state in content["state"].items()},
        "param_groups": [
            dict(group, params=[new[key] for key in group["params"]])
            for group in content["param_groups"]
        ],
    }


def shard(root: nn.Module, model: RetFiner, methods: Iterable[str], mesh: DeviceMesh) -> None:
    """Split a model's parameters over processes; in place, all processes together.

    Args:
        root: The module that holds the model.
        model: The model, which is the same in every process afterwards.
        methods: The root's methods that use the model; outside of them it is in shares.
        mesh: The processes, in one dimension.
    """
    broadcast_parameters(model)
    scalars = {parameter for parameter in model.parameters() if parameter.ndim == 0}
    options: dict[str, Any] = {
        "mesh": mesh,
        # The root too: nothing stays gathered between steps, where optimisers and files look.
        "reshard_after_forward": True,
        "shard_placement_fn": _placement,
        "ignored_params": scalars,
    }
    for block in model.backbone.blocks:
        fully_shard(block, **options)
    for layer in model.multimodal_encoder.layers:
        fully_shard(layer, **options)
        for method in _LAYER_METHODS:
            register_fsdp_forward_method(layer, method)
    fully_shard(root, **options)
    for method in methods:
        register_fsdp_forward_method(root, method)


def _placement(parameter: nn.Parameter) -> Shard | None:
    """Split along the first dimension, or where that is too short along one that fits."""
    processes = world_size()
    if parameter.shape[0] >= processes:
        return None
    fitting = [d for d, size in enumerate(parameter.shape) if size and size % processes == 0]
    return Shard(fitting[0]) if fitting else None


def average_gradients(module: nn.Module) -> None:
    """Average the gradients of parameters that are not split; averaged ones stay as they are."""
    for parameter in module.parameters():
        if not isinstance(parameter, DTensor) and parameter.grad is not None:
            parameter.grad.copy_(all_reduce_mean(parameter.grad))


@torch.no_grad()
def clip_by_norm(parameters: Iterable[Tensor], limit: float) -> None:
    """Scale gradients down to a norm, which is that of whole gradients where they are split.

    Args:
        parameters: Those of this process, whole or split.
        limit: The largest norm.
    """
    parameters = list(parameters)
    gradients = [p.grad for p in parameters if p.grad is not None]
    shares = [g.to_local() for g in gradients if isinstance(g, DTensor)]
    if not shares:
        torch.nn.utils.clip_grad_norm_(parameters, limit)
        return
    whole = [g for g in gradients if not isinstance(g, DTensor)]
    square = torch.nn.utils.get_total_norm(shares) ** 2
    dist.all_reduce(square)
    if whole:
        square += torch.nn.utils.get_total_norm(whole) ** 2
    scale = (limit / (square.sqrt() + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
    for gradient in (*shares, *whole):
        gradient.mul_(scale)
