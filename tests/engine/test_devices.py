"""Devices of this machine."""

import pytest
import torch
from torch import nn

from keyreel.engine.devices import choose_device, choose_dtype, device_names, memory, on_device, size_in_memory
from keyreel.errors import ModelError

CPU = torch.device("cpu")


def test_devices() -> None:
    assert device_names()[-1] == "cpu"
    assert choose_device(None) == torch.device(device_names()[0])
    assert choose_device("cpu") == CPU
    for name in ("cuda:99", "tpu"):
        with pytest.raises(ModelError, match=f"no device '{name}' here. This machine has .*cpu"):
            choose_device(name)


def test_cpu_computes_in_fp32() -> None:
    assert choose_dtype(CPU) == torch.float32
    free, total = memory(CPU)
    assert 0 < free <= total


def test_visiting_a_device_leaves_the_weights_at_home() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    home = [tensor.data_ptr() for tensor in module.state_dict().values()]
    with pytest.raises(RuntimeError, match="interrupted"), on_device(module, CPU):
        raise RuntimeError("interrupted")
    assert [tensor.data_ptr() for tensor in module.state_dict().values()] == home
    assert size_in_memory(nn.Linear(2, 3)) == 4 * (2 * 3 + 3)
