"""A model on a device, ready to run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel
from transformers.utils import logging as transformers_logging

from keyreel import catalogue, checkpoint
from keyreel.canvas import Grid
from keyreel.catalogue import CATALOGUE, GIB
from keyreel.checkpoint import Checkpoint
from keyreel.engine.autoencoder import check_supported
from keyreel.engine.devices import choose_device, choose_dtype, memory, size_in_memory
from keyreel.engine.prompt import PromptEncoder
from keyreel.engine.single_file import load_single_file
from keyreel.errors import ModelError

WORKING_MEMORY = max(card.working_memory for card in CATALOGUE.values())


@dataclass(frozen=True)
class Model:
    """Modules in evaluation mode, without gradients."""

    name: str
    transformer: LTXVideoTransformer3DModel
    vae: AutoencoderKLLTXVideo
    prompts: PromptEncoder
    grid: Grid
    device: torch.device
    dtype: torch.dtype
    fingerprint: str


def load_model(name: str, device: str | None, cache_dir: Path) -> Model:
    """Finds, downloads if need be, checks and loads a model. Raises ModelError.

    name: see `catalogue.find_model`. device: `cuda`, `cuda:1`, `mps`, `cpu`; None takes the fastest.
    """
    _quietly()
    target = choose_device(device)
    dtype = choose_dtype(target)
    found = catalogue.download(catalogue.find_model(name))
    checkpoint.check_files(found)
    transformer, vae, text_encoder = (frozen(module) for module in _load_modules(found, dtype))
    check_supported(vae)
    _place(transformer, vae, text_encoder, target)
    return Model(
        name=found.name,
        transformer=transformer,
        vae=vae,
        prompts=PromptEncoder(_load_tokenizer(found), text_encoder, target),
        grid=found.grid,
        device=target,
        dtype=dtype,
        fingerprint=checkpoint.fingerprint(found, cache_dir),
    )


def frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


def _quietly() -> None:
    """Their progress bars would run into the caller's own; loading is a stage of its own there."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def _load_modules(found: Checkpoint, dtype: torch.dtype) -> tuple[nn.Module, nn.Module, nn.Module]:
    path, text = found.path, found.text
    if path is None or text is None:
        raise ModelError(f"Model {found.name!r} is not on this machine.")
    if found.layout == "single-file":
        transformer, vae = load_single_file(path, dtype)
    else:
        transformer = _load_part(LTXVideoTransformer3DModel, path / "transformer", dtype)
        vae = _load_part(AutoencoderKLLTXVideo, path / "vae", dtype)
    return transformer, vae, _load_part(T5EncoderModel, text / "text_encoder", dtype)


def _load_part(kind: type[Any], folder: Path, dtype: torch.dtype) -> nn.Module:
    """diffusers and transformers only warn of weights that do not fit, and run with random ones."""
    try:
        module, report = kind.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"Cannot load {folder}: {error}") from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[what]:
            raise ModelError(f"{folder} does not fit its configuration: {what} {sorted(report[what])[:5]}.")
    loaded: nn.Module = module
    return loaded


def _load_tokenizer(found: Checkpoint) -> PreTrainedTokenizerBase:
    folder = (found.text or Path()) / "tokenizer"
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise ModelError(f"Cannot load {folder}: {error}") from error


def _place(transformer: nn.Module, vae: nn.Module, text_encoder: nn.Module, device: torch.device) -> None:
    """T5 is a quarter of the weights and runs for a moment: it is the first to stay on the CPU."""
    if device.type == "cpu":
        return
    free, _ = memory(device)
    weights = sum(size_in_memory(module) for module in (transformer, vae, text_encoder))
    if weights > free:
        raise ModelError(f"The model takes {weights / GIB:.1f} GiB; {device} has {free / GIB:.1f} GiB free.")
    transformer.to(device)
    vae.to(device)
    if weights + WORKING_MEMORY <= free:
        text_encoder.to(device)
