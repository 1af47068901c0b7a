from typing import Any

import pytest
import torch
from benchmarks.gpu import models, roofline, traces
from benchmarks.gpu.roofline import CASES, GUIDED, H200, THIRTEEN_B, ideal_ms
from benchmarks.gpu.stages import Bench
from diffusers import LTXVideoTransformer3DModel
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from keyreel.checkpoints.catalogue import SIZE_13B
from keyreel.engine.models import Model
from keyreel.engine.quantised import QuantisedLinear, quantise_linears
from keyreel.video.canvas import Size, drawn_frames, drawn_size, latent_shape
from keyreel.video.job import Sampling
from tests.engine.test_single_file import TRANSFORMER_13B, VAE_097

CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""torch counts those of GPUs only."""
COUNTED = {
    # tokens, products and attention in TFLOP, element-wise GB at one and two noise levels and when fused
    "480p x 89": (4_680, 105.5, 18.2, 212, 241, 42),
    "720p x 89": (11_040, 249.0, 98.1, 499, 569, 99),
    "720p x 161": (19_320, 435.7, 297.4, 874, 995, 174),
}
"""Counted with torch.utils.flop_counter on the engine's operations at full size, on the meta device."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_arithmetic_gives_the_counted_table(case: roofline.Case) -> None:
    tokens, products, attention, one, two, fused = COUNTED[case.name]
    assert case.tokens == tokens
    assert THIRTEEN_B.gemm(tokens) / 1e12 == pytest.approx(products, abs=0.05)
    assert THIRTEEN_B.attention(tokens) / 1e12 == pytest.approx(attention, abs=0.05)
    assert THIRTEEN_B.elementwise(tokens) / 1e9 == pytest.approx(one, abs=0.5)
    assert THIRTEEN_B.elementwise(tokens, levels=2) / 1e9 == pytest.approx(two, abs=0.5)
    assert THIRTEEN_B.elementwise(tokens, fused=True) / 1e9 == pytest.approx(fused, rel=0.01)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_has_the_tokens_of_its_size(case: roofline.Case) -> None:
    drawn = drawn_size(Size(case.width, case.height), models.GRID)
    frames, rows, columns = latent_shape(drawn, drawn_frames(case.frames, models.GRID), models.GRID)
    assert case.tokens == frames * rows * columns


def test_an_h200_needs_440_ms_for_the_ideal_forward() -> None:
    assert ideal_ms(THIRTEEN_B, CASES[0].tokens, H200.peak) == pytest.approx((248.96 + 98.07) / 788 * 1000, abs=0.1)
    assert H200.forward_ms(CASES[0], fused=False) == pytest.approx(660, abs=1)
    assert H200.forward_ms(CASES[0], levels=2, fused=False) == pytest.approx(676, abs=1)


def test_the_share_of_eight_bits_is_that_of_the_layers_that_round_their_inputs() -> None:
    block = LTXVideoTransformer3DModel(num_layers=1).transformer_blocks
    quantise_linears(block, "int8")
    # The keys and values of the text are computed once per prompt.
    layers = [
        layer
        for name, layer in block.named_modules()
        if isinstance(layer, QuantisedLinear) and not name.endswith(("attn2.to_k", "attn2.to_v"))
    ]
    rounding = sum(layer.weight.numel() for layer in layers if layer.rounds_inputs)
    assert rounding / sum(layer.weight.numel() for layer in layers) == roofline.EIGHT_BITS


@pytest.mark.slow
def test_the_arithmetic_is_what_the_engine_computes_in_a_step() -> None:
    model = models.random_model(Bench("cpu", quick=True, known=(), stage="test", send=lambda _figure: None))
    count_flops(model, steps=1)  # the prompts are encoded once
    one, two = (count_flops(model, steps) for steps in (1, 2))
    shape, tokens = models.shape_of(model), traces.SMALL.tokens
    assert two - one == shape.gemm(tokens) + shape.attention(tokens)


def count_flops(model: Model, steps: int) -> int:
    job = traces.job_of(traces.SMALL, steps, sampling=Sampling(guidance_scale=1.0))
    with FlopCounterMode(display=False, custom_mapping={CPU_ATTENTION: attention_flops}) as counter:
        traces.watch(model, job, last="denoise")
    return int(counter.get_total_flops())


def attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def test_a_guided_step_takes_two_forwards() -> None:
    once, guided = (ideal_ms(THIRTEEN_B, 4_680, 1.0, forwards) for forwards in (1, GUIDED))
    assert guided == 2 * once


@pytest.mark.slow
def test_the_models_are_those_of_ltx_video() -> None:
    transformer, vae, text = models.modules(quick=False)
    assert models.parameters(transformer, vae, text) == SIZE_13B
    for module, published in ((transformer, TRANSFORMER_13B), (vae, VAE_097)):
        for name, value in published.items():
            ours = module.config[name]
            assert (list(ours) if isinstance(ours, tuple) else ours) == value, name
