"""Stages that measure the card itself: versions, matrix products, bandwidths, attention."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.roofline import CASES, TEXT_TOKENS, THIRTEEN_B
from benchmarks.gpu.stages import Bench
from benchmarks.gpu.timing import elapsed, seconds
from keyreel.engine.devices import attention_backends, choose_device, choose_dtype, memory

GIB = 2**30
PEAK = "one large product"
SUSTAINED_SECONDS = 5.0
LINK = "pcie.link.gen.current,pcie.link.width.current,power.limit,clocks.max.sm,driver_version"

Product = Callable[[], torch.Tensor]


def versions(bench: Bench) -> None:
    device = choose_device(bench.device)
    bench.add("date", datetime.now(UTC).date().isoformat())
    for package in ("keyreel", "torch", "diffusers"):
        bench.add(package, version(package))
    bench.add("device", str(device))
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        bench.add("card", f"{properties.name}, sm{properties.major}{properties.minor}")
        bench.add("CUDA", str(torch.version.cuda))
        bench.add("cuDNN", str(torch.backends.cudnn.version()))  # type: ignore[no-untyped-call]
        bench.add("link, power and driver", _query(LINK, device))
    free, total = memory(device)
    bench.add("memory", total / GIB, "GiB")
    bench.add("free memory", free / GIB, "GiB")


def products(bench: Bench) -> None:
    """Rates of matrix products: the peak, and the model's own shapes in each type that the card multiplies."""
    device = choose_device(bench.device)
    side = 128 if bench.quick else 8192
    peak = _plain(side, side, side, device)
    _add_rate(bench, PEAK, peak, _operations(side, side, side), device)
    sustained = 0.01 if bench.quick else SUSTAINED_SECONDS
    count = max(1, round(sustained / elapsed(peak, device)))
    rate = _operations(side, side, side) * count / elapsed(peak, device, count) / 1e12
    bench.add(f"{PEAK}, {sustained:g} s long", rate, "TFLOP/s")
    del peak
    for type_name, make in _types(device):
        for tokens, into, out in _shapes(bench):
            work = make(tokens, into, out, device)
            _add_rate(bench, f"{type_name}, {tokens} x {into} x {out}", work, _operations(tokens, into, out), device)


def bandwidth(bench: Bench) -> None:
    """Copies on the device, reads and writes counted, and from pinned main memory to it."""
    device, span = choose_device(bench.device), _span(bench)
    size = 2**20 if bench.quick else 2 * GIB
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    taken = seconds(lambda: target.copy_(source), device, span)
    bench.add("copy on the device", 2 * size / taken / 1e12, "TB/s")
    host = source.cpu().pin_memory() if device.type == "cuda" else source.clone()
    taken = seconds(lambda: target.copy_(host, non_blocking=True), device, span)
    bench.add("copy from pinned main memory", size / taken / 1e9, "GB/s")


def attention(bench: Bench) -> None:
    """Rates of attention with each implementation that the device has, at the model's lengths."""
    device = choose_device(bench.device)
    heads, width = (2, 16) if bench.quick else (32, THIRTEEN_B.width // 32)
    large, small = (64, 32) if bench.quick else (CASES[0].tokens, CASES[1].tokens)
    text = 16 if bench.quick else TEXT_TOKENS
    for length, keys in ((large, large), (small, small), (large, text)):
        query, key, value = (
            torch.randn(1, heads, n, width, device=device, dtype=choose_dtype(device)) for n in (length, keys, keys)
        )
        operations = 4 * heads * length * keys * width
        for backend in attention_backends(device):
            if device.type == "cuda" and backend is SDPBackend.MATH:
                continue  # it writes the whole matrix of scores
            name = f"{backend.name.lower().removesuffix('_attention')}, {length} x {keys}"
            work = partial(functional.scaled_dot_product_attention, query, key, value)
            with sdpa_kernel(backend):
                _add_rate(bench, name, work, operations, device)


def _add_rate(bench: Bench, name: str, work: Callable[[], object], operations: int, device: torch.device) -> None:
    """Adds a rate, or what the device says instead: not each has every type and implementation."""
    try:
        taken = seconds(work, device, _span(bench))
    except RuntimeError as error:
        bench.add(name, f"does not run: {str(error).splitlines()[0]}")
    else:
        bench.add(name, operations / taken / 1e12, "TFLOP/s")


def _types(device: torch.device) -> Iterator[tuple[str, Callable[[int, int, int, torch.device], Product]]]:
    yield str(choose_dtype(device)).removeprefix("torch."), _plain
    yield "int8", _int8
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9):
        yield "fp8", _fp8
        yield "fp8, fast sums", partial(_fp8, fast=True)


def _shapes(bench: Bench) -> Iterator[tuple[int, int, int]]:
    """Yields tokens, in and out features of the model's products: projections, and both of the feed-forward."""
    width = 64 if bench.quick else THIRTEEN_B.width
    for tokens in (32,) if bench.quick else (CASES[0].tokens, CASES[1].tokens):
        yield tokens, width, width
        yield tokens, width, 4 * width
        yield tokens, 4 * width, width


def _plain(tokens: int, into: int, out: int, device: torch.device) -> Product:
    """In the type in which the engine computes on the device."""
    dtype = choose_dtype(device)
    x, weight = (torch.randn(rows, into, device=device, dtype=dtype) for rows in (tokens, out))
    return lambda: functional.linear(x, weight)


def _int8(tokens: int, into: int, out: int, device: torch.device) -> Product:
    x, weight = (torch.randint(-127, 127, (rows, into), device=device, dtype=torch.int8) for rows in (tokens, out))
    return lambda: torch._int_mm(x, weight.T)


def _fp8(tokens: int, into: int, out: int, device: torch.device, *, fast: bool = False) -> Product:
    """With a scale for each row of both matrices.

    fast: keep sums in the tensor cores, which have fewer bits than fp32. The engine does not.
    """
    x, weight = (torch.randn(rows, into, device=device).to(torch.float8_e4m3fn) for rows in (tokens, out))
    scale_x, scale_weight = torch.rand(tokens, 1, device=device), torch.rand(1, out, device=device)
    return lambda: torch._scaled_mm(x, weight.T, scale_x, scale_weight, out_dtype=torch.bfloat16, use_fast_accum=fast)


def _operations(tokens: int, into: int, out: int) -> int:
    return 2 * tokens * into * out


def _span(bench: Bench) -> float:
    return 0.002 if bench.quick else 0.1


def _query(fields: str, device: torch.device) -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "nvidia-smi is not installed"
    command = [program, f"--query-gpu={fields}", "--format=csv,noheader", f"--id={device.index or 0}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)  # noqa: S603 - found on the PATH
    return done.stdout.strip() or f"nvidia-smi failed: {done.stderr.strip()}"
