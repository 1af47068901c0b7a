"""Models with random weights in the real layout, ready to run.

Weights are drawn on the device, so that signals keep their size from layer to layer. They are never zeros: a GPU
multiplies zeros faster, because it needs less power. All blocks have the same matrices and each has its own biases and
modulation: main memory holds the matrices of one block, while the device holds a copy for each as with a real model.
"""

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from torch import nn
from transformers import AutoTokenizer, T5Config, T5EncoderModel

from benchmarks.gpu.roofline import Shape
from benchmarks.gpu.stages import Bench
from keyreel.checkpoints.catalogue import DEMO
from keyreel.checkpoints.checkpoint import Parameters, Quantisation, Stack
from keyreel.checkpoints.memory import ModelSize
from keyreel.engine.adapter_cache import AdapterCache
from keyreel.engine.autoencoder import lay_out
from keyreel.engine.devices import choose_device, choose_dtype, make_current
from keyreel.engine.models import Model
from keyreel.engine.placement import Placement
from keyreel.engine.prompt import PromptEncoder
from keyreel.engine.quantised import quantise_linears
from keyreel.engine.weights import fill
from keyreel.video.canvas import Grid

Config = dict[str, Any]

TRANSFORMER: Config = {
    "attention_head_dim": 128,
    "caption_channels": 4096,
    "cross_attention_dim": 4096,
    "in_channels": 128,
    "num_attention_heads": 32,
    "num_layers": 48,
    "out_channels": 128,
}
VAE: Config = {
    "block_out_channels": (128, 256, 512, 1024, 2048),
    "decoder_block_out_channels": (256, 512, 1024),
    "decoder_causal": False,
    "decoder_inject_noise": (False,) * 4,
    "decoder_layers_per_block": (5, 5, 5, 5),
    "decoder_spatio_temporal_scaling": (True,) * 3,
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "latent_channels": 128,
    "layers_per_block": (4, 6, 6, 2, 2),
    "patch_size": 4,
    "spatial_compression_ratio": 32,
    "spatio_temporal_scaling": (True,) * 4,
    "temporal_compression_ratio": 8,
    "timestep_conditioning": True,
    "upsample_factor": (2,) * 3,
    "upsample_residual": (True,) * 3,
}
TEXT: Config = {
    "d_ff": 10240,
    "d_kv": 64,
    "d_model": 4096,
    "feed_forward_proj": "gated-gelu",
    "num_heads": 64,
    "num_layers": 24,
    "vocab_size": 32128,
}
SMALL_TRANSFORMER = TRANSFORMER | {
    "attention_head_dim": 16,
    "caption_channels": 24,
    "cross_attention_dim": 32,
    "in_channels": 16,
    "num_attention_heads": 2,
    "num_layers": 4,
    "out_channels": 16,
}
SMALL_VAE = VAE | {
    "block_out_channels": (8, 16, 16, 32, 32),
    "decoder_block_out_channels": (8, 16, 32),
    "decoder_layers_per_block": (1, 1, 1, 1),
    "latent_channels": 16,
    "layers_per_block": (1, 1, 1, 1, 1),
}
SMALL_TEXT = TEXT | {"d_ff": 48, "d_kv": 8, "d_model": 24, "num_heads": 4, "num_layers": 2, "vocab_size": 128}
GRID = Grid(spatial=32, temporal=8)
BLOCK = re.compile(r"(transformer_blocks|encoder\.block)\.\d+\.")
NOWHERE = Path("random weights")


def random_model(bench: Bench, quantisation: Quantisation | None = None) -> Model:
    """Returns a model on the bench's device, under the memory plan that suits it. The same weights each time."""
    device = choose_device(bench.device)
    make_current(device)
    dtype = choose_dtype(device)
    transformer, vae, text = modules(quick=bench.quick)
    size = ModelSize(parameters(transformer, vae, text), dtype.itemsize, quantised=quantisation is not None)
    for seed, module in enumerate((transformer, vae, text)):
        fill(module, _weights(module, device, dtype, seed), NOWHERE)
    text.set_input_embeddings(text.shared)
    lay_out(vae)
    if quantisation:
        quantise_linears(transformer.transformer_blocks, quantisation)
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "tokenizer", local_files_only=True)
    return Model(
        name="random",
        transformer=transformer,
        vae=vae,
        prompts=PromptEncoder(tokenizer, text, device),
        grid=GRID,
        device=device,
        devices=(device,),
        dtype=dtype,
        fingerprint="",
        placement=Placement(transformer, vae, text, size, device, dtype),
        adapters=AdapterCache(device),
    )


def random_autoencoder(bench: Bench) -> Any:
    """Returns the model's autoencoder as diffusers has it, on the bench's device."""
    device = choose_device(bench.device)
    dtype = choose_dtype(device)
    _, vae, _ = modules(quick=bench.quick)
    fill(vae, _weights(vae, device, dtype, seed=1), NOWHERE)
    return vae.to(device)


def modules(*, quick: bool) -> tuple[Any, Any, Any]:
    """Returns transformer, autoencoder and text encoder without weights."""
    transformer, vae, text = (SMALL_TRANSFORMER, SMALL_VAE, SMALL_TEXT) if quick else (TRANSFORMER, VAE, TEXT)
    with torch.device("meta"):
        return (
            LTXVideoTransformer3DModel.from_config(transformer),
            AutoencoderKLLTXVideo.from_config(vae),
            T5EncoderModel(T5Config(**text)),
        )


def parameters(transformer: Any, vae: Any, text: Any) -> Parameters:
    out, channels = vae.decoder.conv_out.conv.weight.shape[:2]
    return Parameters(
        _stack(transformer, transformer.transformer_blocks),
        _count(vae),
        _stack(text, text.encoder.block),
        transformer.proj_in.out_features,
        channels / (out / 3),
    )


def shape_of(model: Model) -> Shape:
    proj = model.transformer.proj_in
    return Shape(len(model.transformer.transformer_blocks), proj.out_features, proj.in_features)


def _weights(module: nn.Module, device: torch.device, dtype: torch.dtype, seed: int) -> dict[str, torch.Tensor]:
    """Draws weights on the device and returns them in main memory."""
    generator = torch.Generator(device).manual_seed(seed)
    matrices: dict[str, torch.Tensor] = {}
    weights = {}
    for key, empty in module.state_dict().items():
        kind = BLOCK.sub("", key)
        if kind not in matrices:
            drawn = _draw(key, torch.empty(empty.shape, device=device, dtype=dtype), generator).cpu()
            if kind != key and _is_matrix(key, empty):
                matrices[kind] = drawn
        weights[key] = matrices.get(kind, drawn)
    return weights


def _draw(key: str, weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if key.endswith("timestep_scale_multiplier"):
        return weight.fill_(1000)
    if key.startswith("latents_"):
        return weight.fill_(key == "latents_std")
    if key.endswith("bias") or "scale_shift_table" in key:
        return weight.normal_(0, 0.2, generator=generator)
    if weight.ndim == 1:
        return weight.normal_(1, 0.1, generator=generator)
    gain = 0.3 if key.startswith("decoder.conv_out") else 1  # most pixels inside [-1, 1]
    return weight.normal_(0, gain * weight[0].numel() ** -0.5, generator=generator)


def _is_matrix(key: str, weight: torch.Tensor) -> bool:
    return weight.ndim > 1 and "scale_shift_table" not in key


def _stack(module: nn.Module, blocks: nn.ModuleList) -> Stack:
    return Stack(_count(module), len(blocks), max(map(_count, blocks)))


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())
