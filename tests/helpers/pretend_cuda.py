"""A GPU that is not there: tensors that say they lie on one, and what would go wrong there does.

Parameters and batches become fake CUDA tensors, which have a shape, a type and a device but no
values; whatever has no such tensor in it runs for real. An error is what is one on a GPU: an
operation that mixes devices, a CPU's generator that draws on the GPU, types that do not go
together, a copy to the CPU that can be read before it has arrived. What makes the CPU wait for the
GPU (``.item()``, ``.cpu()``, ``nonzero``, a copy that blocks) is counted, with the line of ours
that asks.
"""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock, patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
PRODUCTS = (aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default)
INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)
SHAPED_BY_VALUES = ("nonzero", "masked_select", "unique", "aten.equal.", "bincount")
"""Parts of names of operations whose result's shape, or the CPU's next step, hangs on values."""
OF_THE_GPU = 20_260_101
"""Seed by which a generator is known that stands for one of a GPU, which only a GPU can make."""
OURS = ("/retfiner/", "/linprobe/")


class PretendCuda(TorchDispatchMode):
    """See above; to be used as a context.

    Attributes:
        waits: How often the CPU waited, by the line that asked.
    """

    def __init__(self) -> None:
        super().__init__()
        # The first backward pass of a process starts a thread for each device that there seems to
        # be, after which autograd refuses to work in a forked process, as other tests have them.
        torch.zeros((), requires_grad=True).backward()
        self.fakes = FakeTensorMode()
        self.waits: Counter[str] = Counter()

    @contextlib.contextmanager
    def here(self) -> Iterator[PretendCuda]:
        """Pretend for the length of a context; autocast believes it too."""
        amp = "torch.cuda.amp.common.amp_definitely_not_available"
        supported = patch("torch.cuda.is_bf16_supported", lambda *_, **__: True)
        event = patch("torch.cuda.Event", Mock)
        ours = patch("retfiner.training.compact_adamw.generator", generator_of_the_gpu)
        with patch(amp, lambda: False), supported, event, ours, self.fakes, self:
            yield self

    # -- what happens to an operation --------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        if func is aten.is_pinned.default:
            return False
        if func in (aten.pin_memory.default, aten._pin_memory.default):
            return args[0]
        flat = tree_flatten((args, kwargs))[0]
        target = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
        if target != "cuda" and not any(isinstance(value, FakeTensor) for value in flat):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        for value in flat:
            if isinstance(value, torch.Generator):
                if value.initial_seed() != OF_THE_GPU:
                    raise RuntimeError(f"a CPU's generator draws on the GPU: {func}, {where()}")
                kwargs["generator"] = None
        if func in COPIES:
            return self._copy(func, args, kwargs, target)
        return self._on_gpu(func, args, kwargs)

    def _on_gpu(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is aten._local_scalar_dense.default:
            self._note("item")
            with unset_fake_temporarily():
                return torch.ones((), dtype=args[0].dtype).item()
        if func in INDEXING:
            args = self._indices(args)
        elif any(part in str(func) for part in SHAPED_BY_VALUES):
            self._note(str(func))
            return self._of_ones(func, args, kwargs)
        args, kwargs = tree_map(lambda value: self._lift(value, func), (args, kwargs))
        types = {value.dtype for value in args if isinstance(value, Tensor)}
        if func in PRODUCTS and len(types) > 1:  # fake tensors let it pass
            raise RuntimeError(f"types clash: {types} in {func}, {where()}")
        composite = torch._C.DispatchKey.CompositeImplicitAutograd
        if func.namespace == "aten" and func.has_kernel_for_dispatch_key(composite):
            with self:  # what it is made of comes by here
                return func.decompose(*args, **kwargs)
        with self.fakes:
            return func(*args, **kwargs)

    def _copy(self, func: Any, args: Any, kwargs: Any, target: str | None) -> Any:
        """Copy within a device, or from one to the other."""
        if func is aten.copy_.default:
            to, source = args[:2]
            waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        else:
            to, source = None, args[0]
            waits = not kwargs.get("non_blocking")
        place = target or (source if to is None else to).device.type
        if place != source.device.type and waits:
            self._note(f"copy to {place}")
        if place == "cpu" and source.device.type == "cuda":
            if to is None and not waits:  # `fetch` of devices.py waits
                raise RuntimeError(f"a copy is handed out before it is there, {where()}")
            with unset_fake_temporarily():
                made = torch.ones(source.shape, dtype=kwargs.get("dtype") or source.dtype)
                if made.is_floating_point() and made.dim() > 1:
                    made /= made.shape[-1]  # rows of probabilities are what is read here
                return made if to is None else to.copy_(made)
        args = tree_map(lambda value: self._lift(value, None), args)
        with self.fakes:
            return func(*args, **kwargs)

    def _indices(self, args: Any) -> Any:
        """Let indices of the CPU follow, which torch copies by itself; the copy blocks."""

        def follow(index: Any) -> Any:
            if not isinstance(index, Tensor):
                return index
            if index.dtype in (torch.bool, torch.uint8):
                raise RuntimeError(f"an index by truth waits for the GPU, {where()}")
            if isinstance(index, FakeTensor):
                return index
            self._note("copy of an index to cuda")
            with self.fakes:
                return self.fakes.from_tensor(index).to("cuda")

        return (args[0], [follow(index) for index in args[1]], *args[2:])

    def _of_ones(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Give the shape that a result has where all values are one."""

        def one(value: Any) -> Any:
            is_tensor = isinstance(value, Tensor)
            return torch.ones(value.shape, dtype=value.dtype) if is_tensor else value

        def there(value: Any) -> Any:
            return self.fakes.from_tensor(value).to("cuda") if isinstance(value, Tensor) else value

        with unset_fake_temporarily():
            found = func(*tree_map(one, args), **tree_map(one, kwargs))
        with self.fakes:
            return tree_map(there, found)

    def _lift(self, value: Any, func: Any) -> Any:
        """Let a real tensor take part: a number always, an array only where it is copied."""
        if not isinstance(value, Tensor) or isinstance(value, FakeTensor):
            return value
        if value.dim() and func is not None:
            shape = tuple(value.shape)
            raise RuntimeError(f"a CPU's tensor {shape} meets the GPU: {func}, {where()}")
        return self.fakes.from_tensor(value)

    def _note(self, what: str) -> None:
        self.waits[f"{what} at {where()}"] += 1

    # -- moving and training -----------------------------------------------------------------------

    def send(self, module: nn.Module) -> None:
        """Move a module's parameters and buffers to the GPU, in place."""
        moved: dict[Tensor, Tensor] = {}
        for part in module.modules():
            for name, own in list(part._parameters.items()):
                if own is not None:
                    if own not in moved:
                        moved[own] = nn.Parameter(own.detach().to("cuda"), own.requires_grad)
                    part._parameters[name] = moved[own]  # type: ignore[assignment]
            for name, buffer in list(part._buffers.items()):
                part._buffers[name] = None if buffer is None else buffer.to("cuda")
        self.waits.clear()

    def backward(self, loss: Tensor) -> None:
        """Do what ``loss.backward()`` does, whose engine asks for a real GPU."""
        assert loss.grad_fn is not None
        nodes = _nodes(loss.grad_fn)  # held: they stay the same objects
        edges = Counter(following for node in nodes for following, _ in node.next_functions)
        incoming: dict[Any, dict[int, Tensor]] = defaultdict(dict)
        incoming[loss.grad_fn][0] = torch.ones_like(loss)
        ready: list[Any] = [loss.grad_fn]
        # One number for the whole pass: activations are computed anew once a checkpoint.
        with patch("torch._C._current_graph_task_id", lambda: 1), torch.no_grad():
            while ready:
                node = ready.pop()
                given = incoming.pop(node, {})
                lined = [given.get(place) for place in range(len(node._input_metadata))]
                call = node if callable(node) else node.apply  # of a Function in Python
                found = call(*lined) if given else None
                found = found if isinstance(found, tuple) else (found,) * len(node.next_functions)
                for (following, place), gradient in zip(node.next_functions, found, strict=False):
                    if following is None:
                        continue
                    if gradient is not None:
                        added = _conform(gradient, following._input_metadata[place])
                        before = incoming[following].get(place)
                        incoming[following][place] = added if before is None else before + added
                    edges[following] -= 1
                    if edges[following] == 0:
                        ready.append(following)


def generator_of_the_gpu(*_: object, **__: object) -> torch.Generator:
    return torch.Generator().manual_seed(OF_THE_GPU)


def _nodes(root: Any) -> list[Any]:
    """List the nodes of a graph."""
    found: dict[Any, None] = {}
    stack = [root]
    while stack:
        node = stack.pop()
        if node is not None and node not in found:
            found[node] = None
            stack += [following for following, _ in node.next_functions]
    return list(found)


def _conform(gradient: Tensor, wanted: Any) -> Tensor:
    """Give a gradient the shape and type of what it belongs to, as torch's engine does."""
    if gradient.device != wanted.device:
        raise RuntimeError(f"a gradient on {gradient.device} for {wanted.device}")
    return gradient.sum_to_size(tuple(wanted.shape)).to(wanted.dtype)


def where() -> str:
    """Name the line of ours that is running."""
    for frame in reversed(traceback.extract_stack()):
        if any(part in frame.filename for part in OURS) and "/tests/" not in frame.filename:
            place = frame.filename.replace("linprobe/", "retfiner/linprobe/").split("/retfiner/")
            return f"{place[-1]}: {frame.line}"
    return "?"
