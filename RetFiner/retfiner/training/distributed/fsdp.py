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
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim.optimizer import Optimizer

from retfiner.model import RetFiner
from retfiner.training.distributed.collectives import (
    copy_from_first,
    mean_over_processes,
    world_size,
)

STEPS = ("training_step", "validation_step")
"""What Lightning calls of a module where its weights are needed."""
_LAYER_METHODS = ("read", "project_image")


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

    @torch.no_grad()
    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return whole weights in the first process, nothing in the others."""
        assert self.lightning_module is not None
        state = self.lightning_module.state_dict(keep_vars=True)
        whole = {id(value): value for value in state.values()}  # tied weights are one in the file
        for place, value in whole.items():
            whole[place] = gather_whole(value, keep=self.is_global_zero)
        for key, value in state.items():
            state[key] = whole[id(value)]
        return state if self.is_global_zero else {}

    @torch.no_grad()
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return whole states in the first process, nothing in the others."""
        if isinstance(optimizer, LightningOptimizer):
            optimizer = optimizer.optimizer
        content = optimizer.state_dict()
        whole = {
            index: {n: gather_whole(value, keep=self.is_global_zero) for n, value in state.items()}
            for index, state in content["state"].items()
        }
        return content | {"state": whole} if self.is_global_zero else {}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's share of whole states.

        Weights are read before they are split, as Lightning does it.
        """
        states = [
            _shares_of(optimizer, state)
            for optimizer, state in zip(
                self.optimizers, checkpoint["optimizer_states"], strict=True
            )
        ]
        super().load_optimizer_state_dict({"optimizer_states": states})


def gather_whole(value: Any, keep: bool) -> Any:
    """Gather a tensor from all processes, all of them together, into main memory.

    Args:
        value: A tensor in shares; whatever else there is stays as it is.
        keep: Whether this process wants it. Another lets go of it at once: whole weights and states
            of a model that is split may fit on no device.

    Returns:
        The whole value, or None where it is not kept.
    """
    if isinstance(value, DTensor):
        value = value.full_tensor()
    if not keep:
        return None
    return value.detach().cpu() if isinstance(value, Tensor) else value


def shard(root: nn.Module, model: RetFiner, methods: Iterable[str], mesh: DeviceMesh) -> None:
    """Split a model's parameters over processes; in place, all processes together.

    Args:
        root: The module that holds the model.
        model: The model, which is the same in every process afterwards.
        methods: The root's methods that use the model; outside of them it is in shares.
        mesh: The processes, in one dimension.
    """
    copy_from_first(model)
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
            parameter.grad.copy_(mean_over_processes(parameter.grad))


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


def _shares_of(optimizer: Optimizer, content: Mapping[str, Any]) -> dict[str, Any]:
    """Cut this process's share out of an optimiser's whole states."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in content["param_groups"] for number in group["params"]]
    states = dict(content["state"])
    for number, parameter in zip(numbers, parameters, strict=True):
        if isinstance(parameter, DTensor) and number in states:
            states[number] = {
                name: _share_like(value, parameter) for name, value in states[number].items()
            }
    return dict(content) | {"state": states}


def _share_like(value: Any, parameter: DTensor) -> Any:
    """Split a tensor as a parameter of its shape is split; a count of steps is no such tensor."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    # Every process has read the file: nothing has to be sent.
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
