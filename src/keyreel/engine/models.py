"""A model on a device, ready to run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5Config, T5EncoderModel
from transformers.utils import logging as transformers_logging

from keyreel.checkpoints import catalogue, checkpoint
from keyreel.checkpoints.auxiliary import find_auxiliary_weights
from keyreel.checkpoints.checkpoint import Checkpoint
from keyreel.checkpoints.memory import ModelSize
from keyreel.engine.adapter_cache import AdapterCache
from keyreel.engine.adapters import Adapter, read_adapter
from keyreel.engine.autoencoder import check_supported, lay_out
from keyreel.engine.devices import choose_devices, choose_dtype
from keyreel.engine.placement import Placement
from keyreel.engine.prompt import PromptEncoder
from keyreel.engine.quantised import check_device, quantise_linears
from keyreel.engine.ranks import ALONE, Group, check_heads
from keyreel.engine.single_file import load_single_file
from keyreel.engine.upsample import load_upsampler
from keyreel.engine.weights import fill, mapped
from keyreel.errors import ModelError, RequestError
from keyreel.video.canvas import Grid
from keyreel.video.recipes import RECIPE_DEFAULTS, Capabilities, RecipeSettings, default_recipe


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model: modules in evaluation mode, without gradients. placement: where their weights are.

    device: this process's, one of `devices`. group: the processes that hold the model, one per device.
    """

    name: str
    transformer: LTXVideoTransformer3DModel
    vae: AutoencoderKLLTXVideo
    prompts: PromptEncoder
    grid: Grid
    device: torch.device
    devices: tuple[torch.device, ...]
    dtype: torch.dtype
    fingerprint: str
    placement: Placement
    adapters: AdapterCache
    capabilities: Capabilities = field(default_factory=Capabilities)
    upsampler: LTXLatentUpsamplerModel | None = None
    distilled_lora: Adapter | None = None
    group: Group = ALONE

    @property
    def ranks(self) -> int:
        """The number of processes that draw a video together."""
        return len(self.devices)

    @property
    def device_names(self) -> str:
        return ",".join(map(str, self.devices))


def load_model(
    name: str, device: str | None, cache_dir: Path, settings: RecipeSettings = RECIPE_DEFAULTS, rank: int = 0
) -> Model:
    """Finds, checks and loads a model, and downloads what is missing. Raises ModelError.

    name: see `catalogue.find_model`. device: `cuda`, `cuda:1`, `mps` or `cpu`; None selects the fastest.
    With several devices (`cuda:0,cuda:1`) this loads the model of one rank; `rank_process.load` loads them all.
    """
    _disable_progress_bars()
    devices = choose_devices(device)
    target = devices[rank]
    dtype = choose_dtype(target)
    found = catalogue.find_model(name)
    if found.quantisation:
        check_device(found.quantisation, target)
    found = catalogue.download(found)
    checkpoint.check_files(found)
    auxiliary = find_auxiliary_weights(found, settings)
    capabilities = auxiliary.capabilities(cache_dir)
    default_recipe(capabilities, settings.recipe)
    transformer, vae, text_encoder = _load_modules(found)
    check_heads(transformer, devices)
    if found.quantisation:
        quantise_linears(transformer.get_submodule("transformer_blocks"), found.quantisation)
    check_supported(vae)
    size = ModelSize(checkpoint.count_parameters(found), dtype.itemsize, found.quantisation is not None)
    placement = Placement(transformer, vae, text_encoder, size, target, dtype, len(devices))
    lay_out(vae)
    return Model(
        name=found.full_name,
        transformer=transformer,
        vae=vae,
        prompts=PromptEncoder(_load_tokenizer(found), text_encoder, target),
        grid=found.grid,
        device=target,
        devices=devices,
        dtype=dtype,
        fingerprint=checkpoint.fingerprint(found, cache_dir),
        placement=placement,
        adapters=AdapterCache(target, len(devices)),
        capabilities=capabilities,
        upsampler=load_upsampler(path, vae, dtype) if (path := auxiliary.upsampler) else None,
        distilled_lora=_load_adapter(path, transformer) if (path := auxiliary.distilled_lora) else None,
    )


def _disable_progress_bars() -> None:
    """Turns off progress bars that would disturb the caller's own."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def _load_modules(found: Checkpoint) -> tuple[nn.Module, nn.Module, nn.Module]:
    """Returns transformer, autoencoder and text encoder, with their weights mapped from the files."""
    path, text = found.path, found.text
    if path is None or text is None:
        raise ModelError(f"Model {found.name!r} is not on this machine.")
    if found.layout == "single-file":
        transformer, vae = load_single_file(path)
    else:
        transformer = _load_part(LTXVideoTransformer3DModel, path / "transformer")
        vae = _load_part(AutoencoderKLLTXVideo, path / "vae")
    return transformer, vae, _load_text_encoder(text / "text_encoder")


def _load_part(kind: type[Any], folder: Path) -> nn.Module:
    """Loads a part strictly. diffusers would only warn of weights that do not fit, and use random ones."""
    try:
        config = kind.load_config(folder, local_files_only=True)
        with torch.device("meta"):
            module: nn.Module = kind.from_config(config)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder} describes a model that Keyreel cannot build: {error}") from error
    fill(module, _weights(folder), folder)
    return module


def _load_text_encoder(folder: Path) -> T5EncoderModel:
    try:
        with torch.device("meta"):
            encoder = T5EncoderModel(T5Config.from_pretrained(folder, local_files_only=True))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder} describes a text encoder that Keyreel cannot build: {error}") from error
    weights = _weights(folder)
    # Files may hold the token embedding under either of two names, or both.
    names = ("shared.weight", "encoder.embed_tokens.weight")
    fill(encoder, {name: weights[other] for name, other in (names, names[::-1]) if other in weights} | weights, folder)
    encoder.set_input_embeddings(encoder.shared)
    return encoder


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return mapped(path for path in checkpoint.part_files(folder).values() if path.suffix == ".safetensors")


def _load_adapter(path: Path, transformer: LTXVideoTransformer3DModel) -> Adapter:
    try:
        return read_adapter(path, transformer, 1.0, (), path.name)
    except RequestError as error:
        raise ModelError(f"KEYREEL_DISTILLED_LORA cannot be used: {error}") from None


def _load_tokenizer(found: Checkpoint) -> PreTrainedTokenizerBase:
    folder = (found.text or Path()) / "tokenizer"
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers, tokenizers and sentencepiece each raise their own, some of them bare
        raise ModelError(
            f"Cannot load the tokenizer in {folder}. Its files are damaged or cut short: download them again. ({error})"
        ) from error
