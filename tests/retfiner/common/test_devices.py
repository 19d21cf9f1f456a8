"""Devices by name, and copies that keep their values."""

from __future__ import annotations

import pytest
import torch

from retfiner.common.devices import resolve_device, send
from retfiner.common.errors import InputError


def test_a_copy_keeps_its_values():
    values = torch.arange(5)
    assert torch.equal(send(values, torch.device("cpu")), torch.arange(5))
    assert send(values, torch.device("meta")).device.type == "meta"


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(InputError, match="no such device"):
        resolve_device("tpu")
