"""Precision by device, and copies that keep their values."""

from __future__ import annotations

import pytest
import torch

from retfiner.common import devices
from retfiner.common.devices import is_made_for_bfloat16, resolve_device, resolve_precision, send
from retfiner.common.errors import InputError


@pytest.mark.parametrize("requested", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("accelerator", ["cpu", "cuda", "mps"])
def test_what_is_asked_for_is_taken(requested, accelerator):
    assert resolve_precision(requested, accelerator) == requested


@pytest.mark.parametrize(
    ("accelerator", "has_units", "precision"),
    [
        ("cuda", True, "bf16-mixed"),
        ("cuda", False, "16-mixed"),
        ("cpu", True, "bf16-mixed"),
        ("cpu", False, "32-true"),
        ("mps", False, "32-true"),
    ],
)
def test_auto_follows_what_the_device_is_made_for(monkeypatch, accelerator, has_units, precision):
    monkeypatch.setattr(devices, "is_made_for_bfloat16", lambda accelerator: has_units)
    assert resolve_precision("auto", accelerator) == precision


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, False),
        ({"avx512_f": True}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
    ],
)
def test_a_cpu_needs_units_of_its_own(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert is_made_for_bfloat16("cpu") is expected
    assert is_made_for_bfloat16("mps") is False


def test_a_copy_keeps_its_values():
    values = torch.arange(5)
    assert torch.equal(send(values, torch.device("cpu")), torch.arange(5))
    assert send(values, torch.device("meta")).device.type == "meta"


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(InputError, match="no such device"):
        resolve_device("tpu")
