"""AdamW in half of the memory takes AdamW's steps, on average and to the bit again."""

import copy
import pickle

import pytest
import torch

from retfiner.training import compact_adamw
from retfiner.training.compact_adamw import CompactAdamW, _rounded_at_random

SHAPES = ((7,), (3, 5), (), (2, 3, 4))


def parameters(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in SHAPES]


def set_gradients(chosen, step):
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in chosen:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def run(optimizer, chosen, steps, first=0):
    for step in range(first, first + steps):
        set_gradients(chosen, step)
        optimizer.step()


def compact(chosen, **settings):
    return CompactAdamW(chosen, seed=3, lr=1e-2, weight_decay=0.1, fused=True, **settings)


def test_rounding_at_random_is_right_on_average_and_hits_neighbours_alone():
    for value in (1.0 + 2**-10, -(3.0 + 2**-8), 1e-12, 0.0):
        values = torch.full((200_000,), value)
        found = _rounded_at_random(values.clone(), torch.Generator().manual_seed(0))
        assert found.dtype == torch.bfloat16
        below = torch.tensor(value).view(torch.int32) & -65536
        neighbours = {int(below), int(below) + 65536}
        assert set(found.float().view(torch.int32).unique().tolist()) <= neighbours
        assert found.double().mean() == pytest.approx(torch.tensor(value).item(), rel=2e-5)


def test_what_bfloat16_holds_is_not_rounded():
    values = torch.tensor([0.5, -1.25, 0.0, 3e-20]).bfloat16().float()
    found = _rounded_at_random(values.clone(), torch.Generator().manual_seed(0))
    assert torch.equal(found.float(), values)


@pytest.mark.parametrize("fused", [True, False])
def test_steps_are_those_of_adamw(fused):
    ours, theirs = parameters(), parameters()
    start = torch.cat([p.detach().flatten() for p in theirs])
    settings = {"lr": 1e-2, "weight_decay": 0.1, "fused": fused}
    run(CompactAdamW(ours, seed=0, **settings), ours, 300)
    run(torch.optim.AdamW(theirs, **settings), theirs, 300)
    ends = [torch.cat([p.detach().flatten() for p in some]) for some in (ours, theirs)]
    moved = (ends[1] - start).norm()
    assert (ends[0] - ends[1]).norm() < 0.02 * moved


def test_a_second_moment_that_rounding_to_nearest_would_hold_still_follows_the_gradient():
    parameter = torch.nn.Parameter(torch.zeros(10_000))
    optimizer = CompactAdamW([parameter], seed=0, lr=0.0, fused=True)
    parameter.grad = torch.full((10_000,), 2.0)
    optimizer.step()
    for _ in range(2000):
        parameter.grad = torch.ones(10_000)
        optimizer.step()
    expected = 0.001 * 4 * 0.999**2000 + (1 - 0.999**2000)
    found = optimizer.state[parameter]["exp_avg_sq"].double().mean()
    assert found == pytest.approx(expected, rel=2e-3)


def test_moments_are_kept_in_half_and_computed_in_parts_alike(monkeypatch):
    whole, parts = parameters(), parameters()
    optimizer = compact(whole)
    run(optimizer, whole, 3)
    states = optimizer.state.values()
    assert all(s["exp_avg"].dtype == s["exp_avg_sq"].dtype == torch.bfloat16 for s in states)
    monkeypatch.setattr(compact_adamw, "_AT_ONCE", 8)
    run(compact(parts), parts, 1)
    fresh = parameters()
    run(torch.optim.AdamW(fresh, lr=1e-2, weight_decay=0.1, fused=True), fresh, 1)
    assert all(torch.equal(a, b) for a, b in zip(parts, fresh, strict=True))


def test_it_goes_on_to_the_bit():
    whole, halves = parameters(), parameters()
    optimizer = compact(whole)
    run(optimizer, whole, 6)
    first = compact(halves)
    run(first, halves, 3)
    kept = pickle.loads(pickle.dumps(first.state_dict()))
    again = compact(halves)
    again.load_state_dict(kept)
    run(again, halves, 3, first=3)
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))
    states = zip(optimizer.state.values(), again.state.values(), strict=True)
    assert all(torch.equal(a[name], b[name]) for a, b in states for name in a)


def test_a_bad_batch_changes_nothing():
    chosen = parameters()
    optimizer = compact(chosen)
    run(optimizer, chosen, 2)
    before = copy.deepcopy(([p.detach() for p in chosen], list(optimizer.state.values())))
    set_gradients(chosen, 2)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(chosen, before[0], strict=True))
    states = zip(optimizer.state.values(), before[1], strict=True)
    assert all(torch.equal(a[name], b[name]) for a, b in states for name in a)
