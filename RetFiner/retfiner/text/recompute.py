"""Memory for a little time: what the backward pass can make again at once is not kept for it.

Numbers stay the same to the bit. Nothing is done where no gradient is asked for; in compiled code,
whose compiler does so itself; nor within gradient checkpointing, which keeps less still.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks


@dataclass
class Switch:
    """Whether anything is made again; shared by all that were told to."""

    is_on: bool = True

    @contextmanager
    def off(self) -> Iterator[None]:
        """Keep everything for a while."""
        before, self.is_on = self.is_on, False
        try:
            yield
        finally:
            self.is_on = before

    def applies(self, checkpointing: bool) -> bool:
        """Say whether to make things again, here and now, in a part that checkpoints or not."""
        is_wanted = self.is_on and not checkpointing and torch.is_grad_enabled()
        return is_wanted and not torch.compiler.is_compiling()


@dataclass
class _Again:
    """Stands for a tensor in what the backward pass has kept: how to make it, and how it lay."""

    make: Callable[[], Tensor]
    size: torch.Size
    stride: tuple[int, ...]
    offset: int | torch.SymInt


def making_again(*ways: tuple[Tensor, Callable[[], Tensor]]) -> AbstractContextManager[object]:
    """Let operations within keep, instead of a tensor or a view of it, the way to make it.

    A way must hold neither the tensor nor its history: a graph that holds itself is never freed.
    """
    if not ways:
        return nullcontext()
    known = {_identity(tensor): (tensor.storage_offset(), make) for tensor, make in ways}

    def keep(saved: Tensor) -> Tensor | _Again:
        if (found := known.get(_identity(saved))) is None:
            return saved
        begin, make = found
        return _Again(make, saved.shape, saved.stride(), saved.storage_offset() - begin)

    return saved_tensors_hooks(keep, _give)


def _identity(tensor: Tensor) -> tuple[int, torch.dtype]:
    """Tell a tensor, whatever its shape, without its address, which a pretended one lacks."""
    return tensor.untyped_storage()._cdata, tensor.dtype


def _give(kept: Tensor | _Again) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    with torch.no_grad():
        return kept.make().as_strided(kept.size, kept.stride, kept.offset)


@dataclass
class ForgetOutput:
    """Keep the input alone, not its output as well, of a module that a linear layer reads.

    For an activation or a LayerNorm, whose own gradient needs the input in any case. In a block of
    a transformer these outputs are six of the sixteen times its width that else are kept.

    Args:
        module: The module.
        switch: Whether to.
        encoder: What the module is a part of.
        checkpointing: The encoder's attribute that says whether it checkpoints.
    """

    module: nn.Module
    switch: Switch
    encoder: nn.Module
    checkpointing: str
    _seen: tuple[Tensor, Tensor, torch.dtype] | None = None
    _within: ExitStack = field(default_factory=ExitStack)

    def install(self, linear: nn.Module) -> None:
        """Watch the module and the linear layer that reads its output, and nothing else does."""
        self.module.register_forward_hook(self._see)
        linear.register_forward_pre_hook(self._enter)
        linear.register_forward_hook(self._leave, always_call=True)

    def _see(self, _: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not self.switch.applies(getattr(self.encoder, self.checkpointing, False)):
            return None
        # As the linear layer would do, out of sight: LayerNorm gives float32 where mixed.
        read = _as_multiplied(output)
        self._seen = (args[0], read, output.dtype)
        return read

    def _enter(self, _: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen, self._seen = self._seen, None
        if seen is None or args[0] is not seen[1]:  # a dropout or norm that does something between
            return
        before, output, computed_in = seen
        # Of the input without its history: a graph that holds itself is never freed.
        make = partial(_repeat, self.module, before.detach(), computed_in, output.dtype)
        self._within.enter_context(making_again((output, make)))

    def _leave(self, *_: Any) -> None:
        self._within.close()


def _as_multiplied(values: Tensor) -> Tensor:
    """Convert as a matrix product would under autocast; without it, change nothing."""
    device = values.device.type
    if values.dtype != torch.float32 or not torch.amp.is_autocast_available(device):
        return values
    is_mixed = torch.is_autocast_enabled(device)
    return values.to(torch.get_autocast_dtype(device)) if is_mixed else values


def _repeat(
    module: nn.Module, before: Tensor, computed_in: torch.dtype, read_in: torch.dtype
) -> Tensor:
    """Do without autocast, and without hooks, what was done with them."""
    if before.dtype != computed_in:
        before = before.to(computed_in)
    output = module.forward(before)
    return output if output.dtype == read_in else output.to(read_in)
