"""Layers in eight bits compute what their definition says, and stay near to the layers that they replace."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from torch import Tensor, nn

from keyreel.checkpoints.checkpoint import Quantisation
from keyreel.checkpoints.memory import PRODUCT_ROWS
from keyreel.engine import kernels, quantised
from keyreel.engine.adapters import attached, read_adapter
from keyreel.engine.kernels_torch import quantise
from keyreel.engine.quantised import TYPES, QuantisedLinear, check_device, quantise_linears
from keyreel.engine.transformer import Forward, Levels, rotary, text_key_values, velocities
from keyreel.errors import ModelError
from tests.tiny_checkpoints import randomised, tiny_lora, tiny_transformer

KINDS: tuple[Quantisation, ...] = ("int8", "fp8")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def definition(layer: QuantisedLinear, tokens: Tensor) -> Tensor:
    """Computes the layer as the module's docstring defines it, in fp64."""
    values, scale = quantise(tokens, layer.weight.dtype)
    sums = values.double() @ layer.weight.double().T
    return sums * scale * layer.scale + layer.bias


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_computes_its_definition(kind: Quantisation, dtype: torch.dtype) -> None:
    """On more tokens than it multiplies at once, and with channels of very different sizes."""
    layer = QuantisedLinear(nn.Linear(64, 72), kind).requires_grad_(False)
    layer.bias.data = layer.bias.data.to(dtype)
    tokens = (torch.randn(PRODUCT_ROWS + 70, 64) * torch.logspace(-2, 1, 64)).to(dtype)
    out = layer(tokens[None])
    assert out.dtype == dtype
    assert out.shape == (1, len(tokens), 72)
    expected = definition(layer, tokens)
    rounding = 1e-5 if dtype == torch.float32 else 2**-8
    assert (out[0] - expected).abs().max() <= rounding * expected.abs().max()


def test_the_int8_sums_are_exact() -> None:
    """Sums of 4,096 products pass 2^24, where fp32 can no longer tell neighbouring integers apart."""
    values = torch.full((2, 4096), 127, dtype=torch.int8)
    values[1, 0] = 126
    assert quantised._integer_product(values, values).tolist() == [
        [127 * 127 * 4096, 127 * 127 * 4096 - 127],
        [127 * 127 * 4096 - 127, 127 * 127 * 4095 + 126 * 126],
    ]


@pytest.mark.parametrize(("kind", "relative"), [("int8", 1 / 254), ("fp8", 1 / 16)])
def test_the_rounding_error_is_at_most_half_a_level(kind: Quantisation, relative: float) -> None:
    """A level of int8 is a fraction of the row's largest value, one of fp8 a fraction of the value itself."""
    dense = torch.randn(16, 64) * torch.logspace(-3, 3, 16)[:, None]
    dense[5] = 0
    values, scale = quantise(dense, TYPES[kind])
    error = (values.float() * scale - dense).abs()
    largest = dense.abs().amax(dim=1, keepdim=True)
    # fp8 has steps of 2^-9 below 2^-6, and the largest value is 448.
    bound = relative * (largest if kind == "int8" else dense.abs()) + (0 if kind == "int8" else largest * 2**-10 / 448)
    assert (error <= bound * 1.001).all()
    assert torch.equal(error[5], torch.zeros(64))


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_with_more_inputs_than_outputs_rounds_only_its_weight(kind: Quantisation) -> None:
    layer = QuantisedLinear(nn.Linear(64, 16), kind)
    tokens = torch.randn(1, 9, 64)
    tokens[..., 5] = 1000  # next to which a scale would leave nothing of the others
    weight = layer.weight.double() * layer.scale[:, None]
    expected = tokens.double() @ weight.T + layer.bias
    torch.testing.assert_close(layer(tokens), expected.float(), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_does_not_depend_on_the_others(kind: Quantisation) -> None:
    layer = QuantisedLinear(nn.Linear(32, 32), kind)
    tokens = torch.randn(40, 32)
    assert torch.equal(layer(tokens)[:7], layer(tokens[:7]))


def test_rows_of_zeros_that_a_gpu_needs_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantised, "_aligned", lambda rows: nn.functional.pad(rows, (0, 0, 0, -len(rows) % 32)))
    for kind in KINDS:
        layer, tokens = QuantisedLinear(nn.Linear(32, 32), kind), torch.randn(5, 32)
        torch.testing.assert_close(layer(tokens), definition(layer, tokens).float())


def test_a_layer_without_bias_adds_none() -> None:
    layer = QuantisedLinear(nn.Linear(32, 32, bias=False), "int8")
    assert torch.equal(layer(torch.zeros(1, 32)), torch.zeros(1, 32))


@pytest.fixture
def transformer() -> LTXVideoTransformer3DModel:
    module = LTXVideoTransformer3DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=4,
        attention_head_dim=32,
        cross_attention_dim=128,
        num_layers=4,
        caption_channels=24,
    )
    return randomised(module, torch.Generator().manual_seed(7))


def velocity(transformer: LTXVideoTransformer3DModel) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    tokens, text = torch.randn(1, 24, 16, generator=generator), torch.randn(1, 7, 24, generator=generator)
    table = rotary(transformer, torch.arange(72.0).view(3, 24), 25)
    (prompt,) = text_key_values(transformer, [text])
    (predicted,) = velocities(transformer, tokens, Levels.of(torch.full((24,), 0.8)), table, [Forward(prompt)])
    return predicted


@pytest.mark.parametrize(("kind", "bound"), [("int8", 0.03), ("fp8", 0.08)])
def test_the_velocity_is_near_the_exact_one(
    transformer: LTXVideoTransformer3DModel, kind: Quantisation, bound: float
) -> None:
    exact = velocity(transformer)
    quantise_linears(transformer.transformer_blocks, kind)
    assert not any(type(module) is nn.Linear for module in transformer.transformer_blocks.modules())
    error = (velocity(transformer) - exact).norm() / exact.norm()
    assert 0 < error < bound


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_is_added_unrounded(tmp_path: Path, kind: Quantisation) -> None:
    transformer = tiny_transformer(torch.Generator().manual_seed(3))
    adapter = read_adapter(tiny_lora(tmp_path / "style.safetensors"), transformer, 1.0, (), "style")
    quantise_linears(transformer.transformer_blocks, kind)
    ((name, branch),) = adapter.branches.items()
    layer = transformer.get_submodule(name)
    assert isinstance(layer, QuantisedLinear)
    tokens = torch.randn(1, 9, layer.in_features)
    plain = layer(tokens)
    with attached(transformer, [adapter]):
        changed = layer(tokens)
    torch.testing.assert_close(changed - plain, branch.gain * tokens @ branch.a.T @ branch.b.T)
    assert torch.equal(layer(tokens), plain)


class TestDevice:
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_cpu_has_both(self, kind: Quantisation) -> None:
        check_device(kind, CPU)

    def test_a_device_without_fp8_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def scaled_mm(*_args: object, **_options: object) -> Tensor:
            raise RuntimeError(
                "torch._scaled_mm is only supported on CUDA devices with compute capability >= 8.9\nmore"
            )

        monkeypatch.setattr(nn.functional, "scaled_mm", scaled_mm)
        check_device("int8", CPU)
        with pytest.raises(
            ModelError, match=r"compute capability 8.9 or more.*cpu does not.*with \+int8 instead"
        ) as error:
            check_device("fp8", CPU)
        assert "\n" not in str(error.value)

    def test_a_device_without_int8_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def int_mm(*_args: object) -> Tensor:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling cublasLtMatmul")

        monkeypatch.setattr(torch, "_int_mm", int_mm)
        with pytest.raises(ModelError, match=r"\+int8 needs .* 7.5 or more.*NOT_SUPPORTED.*without \+int8"):
            check_device("int8", CPU)

    def test_a_device_is_asked_by_torch_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Triton's errors on a GPU without fp8 are of other classes, and would end the process."""
        monkeypatch.setattr(kernels, "_is_fused", lambda _device: not kernels._is_reference.get())
        kernels_cuda = pytest.importorskip("keyreel.engine.kernels_cuda", reason="Triton is not installed.")

        def fail(*_arguments: object) -> None:
            raise Exception("type fp8e4nv not supported in this architecture")

        monkeypatch.setattr(kernels_cuda, "quantise", fail)
        check_device("fp8", CPU)
