import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.activations import GELU
from torch import Tensor
from torch.nn import functional

from keyreel.engine.adapters import Adapter, Branch, attached

pytest.importorskip("triton", reason="Triton has no wheel for this system.")

from triton.runtime.errors import PTXASError

from keyreel.engine import kernels_cuda, kernels_torch
from tests.engine.test_adapters import tiny_transformer

CASES = Path(__file__).with_name("kernels_cuda_cases.py")


@pytest.mark.slow
def test_the_kernels_compute_what_the_reference_computes() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CASES)]
    environment = dict(os.environ)
    if not torch.cuda.is_available():
        environment["TRITON_INTERPRET"] = "1"
        command += ["-k", "not epilogue"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("architecture", [80, 90])
@pytest.mark.parametrize("kernel", ["_norm_modulate", "_norm_rotate", "_add_gated"])
def test_the_kernels_compile_to_wide_loads(
    kernel: str, architecture: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled for the 13B model on Ampere and Hopper, which needs no GPU.

    Each access to a token moves 16 bytes, shared memory holds only partial sums, and no register is spilled.
    """
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiled = compiled_for(getattr(kernels_cuda, kernel), 4096, architecture)
    accesses = global_accesses(compiled)
    assert set(accesses) - {"ld.global.b64"} == {"ld.global.v4.b32", "st.global.v4.b32"}  # one b64: the token's level
    assert accesses.count("ld.global.b64") == (kernel != "_norm_rotate")
    assert compiled.metadata.shared <= 4 * kernels_cuda.WARPS


EIGHT_BITS = [
    ("_quantise", 80, {"out": "*i8", "scale_out": "*fp32", "rows": "*bf16"}),
    ("_quantise", 89, {"out": "*fp8e4nv", "scale_out": "*fp32", "rows": "*bf16"}),
    ("_dequantise", 80, {"out": "*bf16", "values": "*i8", "scale": "*fp32"}),
    ("_dequantise", 89, {"out": "*bf16", "values": "*fp8e4nv", "scale": "*fp32"}),
    (
        "_scale_sums",
        80,
        {"out": "*bf16", "sums": "*i32", "row_scale": "*fp32", "column_scale": "*fp32", "bias": "*bf16"},
    ),
]
"""Kernel, architecture and the types of its pointers."""


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "architecture", "pointers"), EIGHT_BITS)
def test_the_kernels_for_eight_bits_compile_to_wide_loads(
    kernel: str, architecture: int, pointers: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each access to a matrix moves at least eight bytes, and a row is read once."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants: dict[str, Any] = {"WIDTH": 4096, "BLOCK": 4096 if kernel == "_quantise" else kernels_cuda.PART}
    if kernel == "_quantise":
        constants |= {"TINY": kernels_torch.TINY, "LARGEST": 127.0, "ROUND": pointers["out"] == "*i8"}
    compiled = compiled_with(getattr(kernels_cuda, kernel), pointers, constants, architecture)
    wide = {"ld.global.v4.b32", "ld.global.v2.b32", "st.global.v4.b32"}
    assert set(global_accesses(compiled)) - wide <= {"ld.global.b32", "st.global.b32"}  # of a row's scale
    assert global_accesses(compiled).count("ld.global.b32") <= 1
    assert compiled.metadata.shared <= 4 * kernels_cuda.WARPS


def global_accesses(compiled: Any) -> list[str]:
    return re.findall(r"(?:ld|st)\.(?:global|local)\S*", compiled.asm["ptx"])


def compiled_for(kernel: Any, width: int, architecture: int) -> Any:
    """Compiles a kernel for bf16 as Triton does at its first launch."""
    import triton

    kinds = {"index": "*i64", "table": "*fp32", "eps": "fp32", "stride": "i32"}
    constants = {"WIDTH": width, "BLOCK": triton.next_power_of_2(width)}
    names = [name for name in kernel.arg_names if name not in constants]
    types = {name: next((kinds[end] for end in kinds if name.endswith(end)), "*bf16") for name in names}
    return compiled_with(kernel, types, constants, architecture)


def compiled_with(kernel: Any, types: dict[str, str], constants: dict[str, Any], architecture: int) -> Any:
    """types: of the arguments that are no constants, in their order."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(types.values()) if kind != "fp32"}
    source = ASTSource(kernel, types | dict.fromkeys(constants, "constexpr"), constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options={"num_warps": kernels_cuda.WARPS})


def test_a_gpu_that_triton_cannot_assemble_for_is_an_error_of_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's own errors are no RuntimeErrors."""

    def fail(*_tensors: Tensor) -> Tensor:
        raise PTXASError("Value 'sm_130a' is not defined for option 'gpu-name'")

    monkeypatch.setattr(kernels_cuda, "add_gated", fail)
    with pytest.raises(RuntimeError, match=r"PTXASError: .*sm_130a"):
        kernels_cuda.try_out(torch.device("cpu"))


@pytest.fixture
def epilogues(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Computes torch's product with a GELU as on CUDA, with the approximate one. Returns its inputs."""
    found = []

    def fused(bias: Tensor, inputs: Tensor, weight: Tensor, *, use_gelu: bool) -> Tensor:
        assert use_gelu
        found.append(inputs)
        return functional.gelu(torch.addmm(bias, inputs, weight), approximate="tanh")

    monkeypatch.setattr(torch, "_addmm_activation", fused)
    return found


HIDDEN = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1)) * 3


@torch.inference_mode()
def test_gelu_is_computed_with_the_product(epilogues: list[Tensor]) -> None:
    layer = GELU(8, 32, approximate="tanh")
    torch.testing.assert_close(kernels_cuda.gelu(layer, HIDDEN), layer(HIDDEN))
    assert len(epilogues) == 1


@torch.inference_mode()
@pytest.mark.parametrize("layer", [GELU(8, 32), GELU(8, 32, approximate="tanh", bias=False)], ids=["exact", "no bias"])
def test_other_activations_are_computed_after_the_product(epilogues: list[Tensor], layer: GELU) -> None:
    assert torch.equal(kernels_cuda.gelu(layer, HIDDEN), layer(HIDDEN))
    assert not epilogues


@torch.inference_mode()
def test_gelu_comes_after_the_branch_of_a_lora(epilogues: list[Tensor]) -> None:
    transformer = tiny_transformer()
    layer, hidden = transformer.transformer_blocks[0].ff.net[0], torch.cat((HIDDEN, HIDDEN), dim=2)
    branch = Branch(torch.ones(1, 16), torch.ones(64, 1), 1.0)
    with attached(transformer, [Adapter("a LoRA", {"transformer_blocks.0.ff.net.0.proj": branch}, 1.0)]):
        with_lora = kernels_cuda.gelu(layer, hidden)
    wide = functional.linear(hidden, layer.proj.weight + 1, layer.proj.bias)
    torch.testing.assert_close(with_lora, functional.gelu(wide, approximate="tanh"), rtol=0, atol=1e-4)
    assert not epilogues
    kernels_cuda.gelu(layer, hidden)
    assert epilogues, "without the LoRA it is fused again"
