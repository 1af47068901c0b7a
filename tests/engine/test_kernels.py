import sys
from importlib.machinery import ModuleSpec

import pytest
import torch

from keyreel.engine import kernels, kernels_torch
from keyreel.engine.kernels import kernels_for, kernels_trait, reference

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A machine with a GPU. The test may change its capability, and whether it has Triton."""
    found: dict[str, object] = {"capability": (9, 0), "triton": ModuleSpec("triton", None)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: found["capability"])
    monkeypatch.setattr(kernels, "find_spec", lambda _name: found["triton"])
    monkeypatch.setattr(kernels, "_has_triton", kernels._has_triton.__wrapped__)
    kernels_cuda = pytest.importorskip("keyreel.engine.kernels_cuda", reason="Triton is not installed.")
    monkeypatch.setattr(kernels_cuda, "try_out", lambda _device: None)
    monkeypatch.setattr(kernels_cuda, "VERSION", "3.7.1")
    return found


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("kind", ["cpu", "mps", "meta"])
def test_torch_computes_where_there_is_no_cuda(kind: str) -> None:
    assert kernels_for(torch.device(kind)) is kernels_torch
    assert kernels_trait(torch.device(kind)) == "torch"


@pytest.mark.usefixtures("machine")
def test_fused_kernels_compute_on_cuda() -> None:
    assert kernels_for(GPU).__name__ == "keyreel.engine.kernels_cuda"  # type: ignore[attr-defined]
    assert kernels_trait(GPU) == "triton 3.7.1", "videos made with another Triton may have other bytes"


@pytest.mark.parametrize("lack", [{"capability": (7, 5)}, {"triton": None}], ids=["Turing", "no Triton"])
def test_torch_computes_where_triton_cannot(machine: dict[str, object], lack: dict[str, object]) -> None:
    machine |= lack
    assert kernels_for(GPU) is kernels_torch
    assert kernels_trait(GPU) == "torch"


@pytest.mark.usefixtures("machine")
def test_torch_computes_where_triton_finds_no_compiler(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_device: torch.device) -> None:
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr("keyreel.engine.kernels_cuda.try_out", fail)
    assert kernels_for(GPU) is kernels_torch
    assert kernels_trait(GPU) == "torch"
    assert "torch computes on cuda:0, which takes longer" in caplog.text
    assert "Failed to find C compiler." in caplog.text


@pytest.mark.usefixtures("machine")
def test_torch_computes_where_triton_does_not_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr("keyreel.engine.kernels_cuda")
    monkeypatch.setitem(sys.modules, "keyreel.engine.kernels_cuda", None)
    assert kernels_for(GPU) is kernels_torch
    assert "torch computes on cuda:0, which takes longer" in caplog.text


@pytest.mark.usefixtures("machine")
def test_the_reference_can_be_asked_for() -> None:
    with reference():
        assert kernels_for(GPU) is kernels_torch
        assert kernels_trait(GPU) == "torch"
    assert kernels_trait(GPU) == "triton 3.7.1"
