import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend

from keyreel.engine import devices
from keyreel.engine.devices import (
    attention_backends,
    choose_device,
    choose_devices,
    choose_dtype,
    device_names,
    is_out_of_memory,
    main_memory,
    make_current,
    memory,
    on_device,
    pinned,
    pinned_bytes,
    release,
    sent,
    traits,
)
from keyreel.errors import ModelError

CPU = torch.device("cpu")


def test_the_fastest_device_is_chosen_and_unknown_ones_are_refused() -> None:
    assert device_names()[-1] == "cpu"
    assert choose_device(None) == torch.device(device_names()[0])
    assert choose_device("cpu") == CPU
    for name in ("cuda:99", "tpu"):
        with pytest.raises(ModelError, match=f"no device '{name}' here. This machine has .*cpu"):
            choose_device(name)


def test_several_devices_are_chosen_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "device_names", lambda: ["cuda:0", "cuda:1", "mps", "cpu"])
    monkeypatch.setattr(devices, "check_code", lambda _device: None)
    assert choose_devices(None) == (torch.device("cuda:0"),)
    assert choose_devices("cuda:1, cuda:0") == (torch.device("cuda:1"), torch.device("cuda:0"))
    assert choose_devices("cpu,cpu,cpu") == (CPU, CPU, CPU)
    for names, problem in {
        "cuda:0,cpu": "must be of one kind",
        "cuda,cuda:0": "names a device twice",
        "mps,mps": "names a device twice",
        "cuda:0,cuda:2": "There is no device 'cuda:2' here",
        "cuda:0,": "There is no device '' here",
    }.items():
        with pytest.raises(ModelError, match=problem):
            choose_devices(names)


@pytest.mark.parametrize("name", [None, "cuda"])
def test_a_gpu_for_which_torch_has_no_code_is_refused(monkeypatch: pytest.MonkeyPatch, name: str | None) -> None:
    def fail(device: torch.device) -> None:
        raise torch.AcceleratorError(f"CUDA error: no kernel image is available for execution on the device ({device})")

    monkeypatch.setattr(devices, "device_names", lambda: ["cuda:0", "cpu"])
    monkeypatch.setattr(devices, "_add", fail)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "GeForce GTX 1080")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (6, 1))
    expected = r"no code for cuda:0, GeForce GTX 1080 \(compute capability 6.1\)\. Install .* --device cpu"
    with pytest.raises(ModelError, match=expected):
        choose_device(name)
    assert choose_device("cpu") == CPU


def test_other_errors_of_a_gpu_are_not_taken_for_missing_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_device: torch.device) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(devices, "_add", fail)
    with pytest.raises(torch.OutOfMemoryError):
        devices.check_code(torch.device("cuda:0"))


def test_one_device_is_not_several() -> None:
    with pytest.raises(ModelError, match=r"Only a worker can use several devices .* --device cpu,cpu"):
        choose_device("cpu,cpu")


def test_a_cpu_computes_in_fp32() -> None:
    assert choose_dtype(CPU) == torch.float32
    free, total = memory(CPU)
    assert 0 < free <= total


def test_a_gpu_whose_driver_is_too_old_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch counts it nevertheless, and fails when it is used."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_names()[:2] == ["cuda:0", "cuda:1"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "cuda:0" not in device_names()


def test_each_gpu_computes_in_bf16_if_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    capabilities = {0: (7, 5), 1: (8, 0), 2: (12, 0)}
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index])
    chosen = [choose_dtype(torch.device("cuda", index)) for index in capabilities]
    assert chosen == [torch.float32, torch.bfloat16, torch.bfloat16]


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Exception]]:
    """cuDNN's attention, on the CPU and with the numbers of another one. It raises the errors that a test adds."""
    errors: list[Exception] = []

    @contextmanager
    def chosen(backend: SDPBackend) -> Iterator[None]:
        assert backend is SDPBackend.CUDNN_ATTENTION
        if errors:
            raise errors.pop()
        yield

    ones = torch.ones
    monkeypatch.setattr(devices, "sdpa_kernel", chosen)
    monkeypatch.setattr(torch, "ones", lambda *sizes, **options: ones(*sizes, **options | {"device": CPU}))
    devices._has_cudnn_attention.cache_clear()
    yield errors
    devices._has_cudnn_attention.cache_clear()


@pytest.mark.usefixtures("cudnn")
def test_attention_is_cudnns_on_hopper_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, chosen = torch.device("cuda:0"), {}
    for capability in ((8, 0), (8, 9), (9, 0), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device, found=capability: found)
        chosen[capability] = attention_backends(gpu)[0]
    assert chosen == {
        (8, 0): SDPBackend.FLASH_ATTENTION,
        (8, 9): SDPBackend.FLASH_ATTENTION,
        (9, 0): SDPBackend.CUDNN_ATTENTION,
        (12, 0): SDPBackend.CUDNN_ATTENTION,
    }
    assert attention_backends(torch.device("cpu"))[-1] is SDPBackend.MATH, "which can do every call"


def test_a_gpu_that_cudnn_does_not_know_has_other_attention(
    monkeypatch: pytest.MonkeyPatch, cudnn: list[Exception]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (10, 3))
    cudnn.append(RuntimeError("cuDNN Frontend error: No valid execution plans built."))
    for _ in range(2):
        assert attention_backends(torch.device("cuda:0")) == attention_backends(CPU)
    assert not cudnn


def test_a_full_gpu_does_not_decide_about_its_attention(
    monkeypatch: pytest.MonkeyPatch, cudnn: list[Exception]
) -> None:
    """Or videos would have other bytes, depending on what was there at the start."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    cudnn.append(torch.OutOfMemoryError())
    with pytest.raises(torch.OutOfMemoryError):
        attention_backends(torch.device("cuda:0"))
    assert attention_backends(torch.device("cuda:0"))[0] is SDPBackend.CUDNN_ATTENTION


@pytest.mark.usefixtures("cudnn")
def test_a_bias_is_not_left_to_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    assert SDPBackend.CUDNN_ATTENTION not in attention_backends(torch.device("cuda:0"), biased=True)


def test_a_gpu_in_use_convolves_in_one_order_only(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    make_current(CPU)
    assert (used, torch.backends.cudnn.deterministic) == ([], False)
    make_current(torch.device("cuda:1"))
    assert (used, torch.backends.cudnn.deterministic) == ([torch.device("cuda:1")], True)


def test_the_traits_of_a_device_tell_what_its_numbers_depend_on() -> None:
    found = traits(CPU, torch.float32)
    assert (found["dtype"], found["torch"], found["ranks"]) == ("float32", torch.__version__, "1")
    assert found["kernels"] == "torch"
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert traits(CPU, torch.float32)["device"] != found["device"]
    finally:
        torch.set_num_threads(threads)


class Sent:
    """A tensor that tells how it was copied."""

    def __init__(self, history: tuple[object, ...] = ()) -> None:
        self.history = history

    def pin_memory(self) -> "Sent":
        return Sent((*self.history, "pinned"))

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Sent":
        return Sent((*self.history, device.type, "at once" if non_blocking else "waits"))


def test_a_copy_to_a_gpu_waits_for_nothing() -> None:
    """Elsewhere torch may read the tensor after the copy, when its memory is used for something else."""
    copied: Any = sent(cast("torch.Tensor", Sent()), torch.device("cuda:0"))
    assert copied.history == ("pinned", "cuda", "at once")
    copied = sent(cast("torch.Tensor", Sent()), torch.device("mps"))
    assert copied.history == ("mps", "waits")
    assert sent(torch.ones(2), CPU).tolist() == [1, 1]


@pytest.mark.usefixtures("no_pinned_memory")
def test_other_memory_serves_where_no_more_can_be_pinned(caplog: pytest.LogCaptureFixture) -> None:
    tensor = torch.ones(3)
    assert pinned(tensor) is tensor
    room = pinned_bytes(5)
    assert (room.dtype, room.shape) == (torch.uint8, (5,))
    assert [record.message.partition(",")[0] for record in caplog.records] == ["The system gives no more pinned memory"]


def test_other_errors_of_pinning_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_tensor: torch.Tensor) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.Tensor, "pin_memory", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        pinned(torch.ones(3))


def test_what_is_released_includes_pinned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    freed = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append("device"))
    monkeypatch.setattr(torch.accelerator, "empty_host_cache", lambda: freed.append("pinned"))
    release(CPU)
    assert freed == []
    release(torch.device("cuda:0"))
    assert freed == ["device", "pinned"]


def test_main_memory_is_what_linux_reports_as_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "PROC", tmp_path)
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:    3 kB\n")
    assert main_memory()[0] == 3 * 1024


def test_main_memory_respects_the_limit_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 500000\ninactive_file 200000\n")
    _, total = main_memory()
    assert total > 1_000_000
    (tmp_path / "memory.max").write_text("1000000\n")
    assert main_memory() == (500_000, 1_000_000)


@pytest.mark.slow
def test_main_memory_respects_the_limit_of_the_process() -> None:
    code = (
        "import resource; from keyreel.engine.devices import main_memory; free, _ = main_memory();"
        "held = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (held + 10**8, -1)); print(main_memory()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) <= 10**8


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (torch.AcceleratorError("CUDA error: out of memory"), True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("DefaultCPUAllocator"), False),
    ],
)
def test_errors_are_recognised_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_an_allocation_error_of_the_cpu_is_recognised() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**55)
    assert is_out_of_memory(raised.value)


def test_weights_return_to_their_memory_after_a_stay_on_a_device() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    addresses = [tensor.data_ptr() for tensor in module.state_dict().values()]
    with pytest.raises(RuntimeError, match="interrupted"), on_device(module, CPU):
        raise RuntimeError("interrupted")
    assert [tensor.data_ptr() for tensor in module.state_dict().values()] == addresses
