import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from keyreel.checkpoints.lora_keys import LowRank, check_lora
from keyreel.errors import RequestError

Array = NDArray[np.float32]

# Features (out, in) of LTX-Video 13B.
LINEARS = {
    "proj_in": (4096, 128),
    "caption_projection.linear_1": (4096, 4096),
    "transformer_blocks.0.attn1.to_q": (4096, 4096),
    "transformer_blocks.0.attn1.to_out.0": (4096, 4096),
    "transformer_blocks.0.ff.net.2": (4096, 16384),
    "proj_out": (128, 4096),
}
LOC = ("loras", 1, "path")
TO_Q = "transformer.transformer_blocks.0.attn1.to_q"


def tensor(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def lora(module: str = TO_Q, outputs: int = 4096, inputs: int = 4096, rank: int = 2) -> dict[str, Array]:
    return {
        f"{module}.lora_A.weight": tensor(rank, inputs),
        f"{module}.lora_B.weight": tensor(outputs, rank),
    }


def check(path: Path, tensors: dict[str, Array], metadata: dict[str, str] | None = None) -> dict[str, LowRank]:
    save_file(tensors, path, metadata)
    return check_lora(path, LINEARS, loc=LOC, name="style.safetensors")


def refusal(path: Path, tensors: dict[str, Array], metadata: dict[str, str] | None = None) -> str:
    with pytest.raises(RequestError) as caught:
        check(path, tensors, metadata)
    return sole_message(caught.value)


def sole_message(error: RequestError) -> str:
    (problem,) = error.problems
    assert problem.loc == LOC
    assert problem.type == "lora_load_error"
    assert problem.message.startswith("style.safetensors ")
    return problem.message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0123abcd"


def test_layers_are_mapped_to_their_keys(path: Path) -> None:
    kohya = {
        "lora_unet_transformer_blocks_0_attn1_to_out_0.lora_down.weight": tensor(2, 4096),
        "lora_unet_transformer_blocks_0_attn1_to_out_0.lora_up.weight": tensor(4096, 2),
        "lora_unet_transformer_blocks_0_attn1_to_out_0.alpha": tensor(1),
    }
    layers = check(path, lora() | kohya)
    assert layers["transformer_blocks.0.attn1.to_q"] == LowRank(
        f"{TO_Q}.lora_A.weight", f"{TO_Q}.lora_B.weight", alpha=None, rank=2, gain=1.0
    )
    down, up, alpha = kohya
    assert layers["transformer_blocks.0.attn1.to_out.0"] == LowRank(down, up, alpha, rank=2, gain=1.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + bytes(200), "is a PyTorch pickle or zip archive; only safetensors"),
        (b"\x80\x02}q\x00." + bytes(200), "is a Python pickle"),
        (b"GGUF" + bytes(200), "is a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><title>Sign in</title>", "is a web page"),
        (b'{"detail": "not found"}', "is a JSON document"),
        (b"", "is not a complete safetensors file"),
        (b"\xff" * 100, "is not a complete safetensors file"),
    ],
)
def test_other_file_formats_are_named(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        check_lora(path, LINEARS, loc=LOC, name="style.safetensors")
    assert message in sole_message(caught.value)


def test_truncated_file_is_refused(path: Path) -> None:
    save_file(lora(), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RequestError) as caught:
        check_lora(path, LINEARS, loc=LOC, name="style.safetensors")
    assert "upload or download it again" in sole_message(caught.value)


def test_file_without_matching_keys_is_refused(path: Path) -> None:
    message = refusal(path, {f"blocks.{i}.attn.qkv.lora_A.weight": tensor(1, 1) for i in range(9)})
    assert "none of its 9 keys belongs to a linear layer" in message
    assert "blocks.0.attn.qkv.lora_A.weight" in message
    assert "and 5 more" in message


def test_file_with_some_unknown_keys_is_refused(path: Path) -> None:
    message = refusal(path, lora() | lora("transformer.transformer_blocks.0.audio_attn1.to_q"))
    assert "2 of its 4 keys belong to no linear layer" in message
    assert "audio_attn1" in message


def test_weights_of_norms_are_refused(path: Path) -> None:
    assert "q_norm" in refusal(path, lora() | {"diffusion_model.transformer_blocks.0.attn1.q_norm.weight": tensor(4)})


@pytest.mark.parametrize("missing", ["lora_A.weight", "lora_B.weight"])
def test_incomplete_pair_is_refused(path: Path, missing: str) -> None:
    tensors = lora()
    del tensors[f"{TO_Q}.{missing}"]
    message = refusal(path, tensors)
    assert "has only a part of transformer_blocks.0.attn1.to_q" in message
    assert next(iter(tensors)) in message


def test_alpha_without_weights_is_refused(path: Path) -> None:
    assert "only a part of proj_in" in refusal(path, lora() | {"transformer.proj_in.alpha": tensor(1)})


@pytest.mark.parametrize(
    "module", ["diffusion_model.transformer_blocks.0.attn1.to_q", "lora_unet_transformer_blocks_0_attn1_to_q"]
)
def test_two_spellings_of_one_layer_are_refused(path: Path, module: str) -> None:
    message = refusal(path, lora() | lora(module))
    assert "two spellings of one tensor" in message
    assert module in message
    assert TO_Q in message


@pytest.mark.parametrize(
    ("module", "outputs", "inputs"),
    [
        (TO_Q, 2048, 2048),
        ("diffusion_model.patchify_proj", 2048, 128),
        ("transformer.proj_out", 128, 2048),
        ("transformer.transformer_blocks.0.ff.net.2", 2048, 8192),
    ],
)
def test_lora_for_the_smaller_model_is_explained(path: Path, module: str, outputs: int, inputs: int) -> None:
    # A block that this model lacks must not hide the difference in width.
    tensors = lora(module, outputs, inputs) | lora("transformer.transformer_blocks.99.attn1.to_q")
    message = refusal(path, tensors)
    assert "made for a model of width 2048 (LTX-Video 2B), this model has width 4096 (LTX-Video 13B)" in message


def test_lora_for_other_latents_is_explained(path: Path) -> None:
    message = refusal(path, lora("transformer.proj_in", 4096, 64))
    assert "its proj_in turns 64 features into 4096, this model's 128 into 4096" in message


@pytest.mark.parametrize(("rank_a", "rank_b"), [(2, 3), (0, 0)])
def test_invalid_ranks_are_refused(path: Path, rank_a: int, rank_b: int) -> None:
    tensors = {f"{TO_Q}.lora_A.weight": tensor(rank_a, 4096), f"{TO_Q}.lora_B.weight": tensor(4096, rank_b)}
    assert f"lora_A of rank {rank_a} with a lora_B of rank {rank_b}" in refusal(path, tensors)


def test_convolutions_are_refused(path: Path) -> None:
    tensors = {f"{TO_Q}.lora_A.weight": tensor(2, 4096, 1, 1), f"{TO_Q}.lora_B.weight": tensor(4096, 2, 1, 1)}
    assert "weights with 4 dimensions" in refusal(path, tensors)


def test_quantised_weights_are_refused(path: Path) -> None:
    tensors = {key: array.astype(np.int8) for key, array in lora().items()}
    save_file(tensors, path)
    with pytest.raises(RequestError, match=r"is quantised .*is I8"):
        check_lora(path, LINEARS, loc=LOC, name="style.safetensors")


def test_alpha_must_be_one_number(path: Path) -> None:
    assert "alpha that is not one number" in refusal(path, lora() | {f"{TO_Q}.alpha": tensor(2)})


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (f"{TO_Q}.lora_magnitude_vector.weight", "DoRA magnitudes"),
        ("lora_unet_transformer_blocks_0_attn1_to_q.dora_scale", "DoRA magnitudes"),
        ("lycoris_transformer_blocks_0_attn1_to_q.lokr_w1", "LoKr weights"),
        ("lycoris_transformer_blocks_0_attn1_to_q.hada_w1_a", "LoHa weights"),
        (f"{TO_Q}.oft_blocks", "OFT weights"),
        (f"{TO_Q}.oft_R.weight", "OFT weights"),
        ("diffusion_model.transformer_blocks.0.attn1.to_q.diff", "differences of whole weights"),
        ("diffusion_model.transformer_blocks.0.attn1.to_q.diff_b", "differences of whole weights"),
        ("lora_unet_transformer_blocks_0_attn1_to_q.lora_mid.weight", "low-rank convolutions"),
        (f"{TO_Q}.lora_B.bias", "biases"),
    ],
)
def test_other_kinds_of_adapters_are_named(path: Path, key: str, kind: str) -> None:
    message = refusal(path, lora() | {key: tensor(1)})
    assert f"holds {kind} in 1 of its 3 keys ({key})" in message
    assert "pairs of lora_A and lora_B" in message


@pytest.mark.parametrize(
    "key",
    [
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "text_encoder.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight",
    ],
)
def test_weights_for_the_text_encoder_are_refused(path: Path, key: str) -> None:
    message = refusal(path, lora() | {key: tensor(1)})
    assert f"1 of its 3 keys belong to no linear layer of the transformer ({key})" in message
    assert "for the text encoder, which LoRAs do not change here: save it without them" in message
    # Without these weights, a LoRA for another model would still not fit.
    assert "none of its 2 keys" in refusal(path, {key: tensor(1), "unet.to_q.lora_A.weight": tensor(1)})


@pytest.mark.parametrize("config", ["{", '{"lora_alpha": "much"}', '{"lora_alpha": NaN}', "[]"])
def test_damaged_configuration_is_refused(path: Path, config: str) -> None:
    assert "damaged lora_adapter_metadata" in refusal(path, lora(), {"lora_adapter_metadata": config})


def test_alpha_patterns_must_be_names_of_layers(path: Path) -> None:
    config = '{"lora_alpha": 8, "alpha_pattern": {"(a+)+$": 4}}'
    assert "alpha_pattern that matches no layer by name ((a+)+$)" in refusal(
        path, lora(), {"lora_adapter_metadata": config}
    )


numbers = st.integers(-1, 2**64)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "F8_E4M3", "X", ""]),
        "shape": st.lists(numbers, max_size=3),
        "data_offsets": st.lists(numbers, max_size=3),
        "__metadata__": st.text(),
    },
)
names = st.sampled_from([f"{TO_Q}.lora_A.weight", f"{TO_Q}.lora_B.weight", f"{TO_Q}.alpha", "__metadata__"]) | st.text()
headers = st.dictionaries(names, entries | numbers, max_size=4).map(lambda header: json.dumps(header).encode())


@example(b"[" * 100_000, 0)
@given(headers | st.binary(), st.sampled_from([0, 1, -1, 2**62]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_header_is_refused_or_fits(path: Path, header: bytes, off: int) -> None:
    size = min(max(0, len(header) + off), 2**64 - 1)
    path.write_bytes(size.to_bytes(8, "little") + header + bytes(64))
    try:
        check_lora(path, LINEARS, loc=LOC, name="style.safetensors")
    except RequestError as error:
        sole_message(error)


def test_messages_stay_short(path: Path) -> None:
    assert len(refusal(path, {f"{i}{'x' * 100_000}": tensor(1) for i in range(50)})) < 1000
