"""AdamW whose moments take half of the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from retfiner.common.seeds import generator

_MOMENTS = ("exp_avg", "exp_avg_sq")
_AT_ONCE = 2**24
"""Elements that are in float32 at a time; a larger parameter is so alone."""


class CompactAdamW(torch.optim.AdamW):
    """AdamW that computes in float32 and keeps its moments in bfloat16, rounded at random.

    A second moment moves by a thousandth a step, which bfloat16's eight bits do not resolve: to the
    nearest value it would stand still. Rounded up or down with the odds of what is cut off, it is
    right on average (Gupta et al., Deep Learning with Limited Numerical Precision, 2015).

    Args:
        params: As :class:`torch.optim.AdamW` has them.
        seed: What the rounding depends on, with the number of the step; alike in every process.
        settings: Further arguments of :class:`torch.optim.AdamW`.
    """

    def __init__(self, params: Iterable[Any], seed: int, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.seed = seed
        for group in self.param_groups:
            group["steps"] = 0  # of its own: to read the state's would be a wait for the device
        self.register_load_state_dict_post_hook(_keep_halves)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step.

        Args:
            closure: Computes the loss and its gradients.

        Returns:
            What ``closure`` returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for number, group in enumerate(self.param_groups):
            place = (self.seed, "moments", number, group["steps"])
            generators: dict[torch.device, torch.Generator] = {}
            for parameters in _parts([p for p in group["params"] if p.grad is not None]):
                device = parameters[0].device
                if device not in generators:
                    generators[device] = generator(*place, device=device)
                self._update(parameters, group, generators[device])
            group["steps"] += 1
        return loss

    def _update(
        self, parameters: list[Tensor], group: dict[str, Any], draws: torch.Generator
    ) -> None:
        states = [self._state_of(parameter) for parameter in parameters]
        flats, (first, second) = zip(
            *(_widened([state[name] for state in states]) for name in _MOMENTS), strict=True
        )
        adamw(
            parameters,
            [cast(Tensor, parameter.grad) for parameter in parameters],
            first,
            second,
            [],
            [state["step"] for state in states],
            foreach=False,
            fused=self.defaults["fused"],
            # Put there by a float16 scaler, or by training that looks at its loss a batch late.
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for name, flat in zip(_MOMENTS, flats, strict=True):
            kept = [state[name] for state in states]
            torch._foreach_copy_(kept, _views(_rounded_at_random(flat, draws), kept))

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            place = parameter.device if self.defaults["fused"] else torch.device("cpu")
            state["step"] = torch.zeros((), device=place)
            for name in _MOMENTS:
                state[name] = torch.zeros_like(parameter, dtype=torch.bfloat16)
        return state


def _parts(parameters: list[Tensor]) -> Iterator[list[Tensor]]:
    """Give parameters in turn, as many of one device as may be widened at once."""
    part: list[Tensor] = []
    for parameter in parameters:
        size = sum(p.numel() for p in part) + parameter.numel()
        if part and (size > _AT_ONCE or part[0].device != parameter.device):
            yield part
            part = []
        part.append(parameter)
    if part:
        yield part


def _widened(kept: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Copy tensors into one of float32; return it, and the place of each in it."""
    flat = torch.empty(sum(t.numel() for t in kept), device=kept[0].device)
    views = _views(flat, kept)
    torch._foreach_copy_(views, kept)
    return flat, views


def _views(flat: Tensor, like: list[Tensor]) -> list[Tensor]:
    parts = flat.split([t.numel() for t in like])
    return [part.view(t.shape) for part, t in zip(parts, like, strict=True)]


def _rounded_at_random(values: Tensor, draws: torch.Generator) -> Tensor:
    """Round (N,) float32 to bfloat16: the upper half of the bits, after a draw for the lower."""
    draw = torch.randint(
        2**16, values.shape, generator=draws, dtype=torch.int32, device=values.device
    )
    return values.view(torch.int32).add_(draw).view(torch.bfloat16)[1::2]


def _keep_halves(optimizer: torch.optim.Optimizer) -> None:
    """Undo what loading does, which gives moments the parameter's type."""
    for state in optimizer.state.values():
        for name in _MOMENTS:
            state[name] = state[name].to(torch.bfloat16)
