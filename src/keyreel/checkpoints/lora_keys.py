"""The keys of a LoRA file, matched to the layers of a model in every spelling that is in use.

Reads the header only and needs no torch, so that a file can be refused before a device is free.
"""

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from keyreel.errors import Loc, RequestError

Linears = Mapping[str, tuple[int, int]]
"""(out, in) features of each linear layer of a model, by module path."""

KEY = re.compile(
    r"(?:base_model\.model\.)?(?:transformer\.|(?:model\.)?diffusion_model\.|lora_(?:unet|transformer)_)?"
    r"(?P<module>.+?)\.(?:lora[._](?P<part>A|B|down|up)(?:\.default)?(?:\.weight)?|alpha)"
)
PARTS = {"A": "a", "down": "a", "B": "b", "up": "b", None: "alpha"}
ORIGINAL_NAMES = {"proj_in": "patchify_proj", "time_embed": "adaln_single"}
UNSUPPORTED = {
    "DoRA magnitudes": re.compile(r"\.(dora_scale|lora_magnitude_vector)"),
    "LoKr weights": re.compile(r"\.lokr_"),
    "LoHa weights": re.compile(r"\.hada_"),
    "OFT weights": re.compile(r"\.oft_"),
    "differences of whole weights": re.compile(r"\.diff(_b)?$"),
    "low-rank convolutions": re.compile(r"\.lora_mid"),
    "biases": re.compile(r"\.lora[._](B|up)(\.default)?\.bias$"),
}
TEXT_ENCODER = re.compile(r"(?:base_model\.model\.)?(?:lora_te\d?_|text_encoders?[._]|text_model\.|t5)")
FLOAT_TYPES = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
MODEL_WIDTHS = {2048: " (LTX-Video 2B)", 4096: " (LTX-Video 13B)"}
OTHER_FORMATS = {
    b"PK\x03\x04": "a PyTorch pickle or zip archive",
    b"\x80": "a Python pickle",
    b"GGUF": "a GGUF file",
    b"version https://git-lfs": "a Git LFS pointer (the weights themselves were not downloaded)",
    b"<": "a web page",
    b"{": "a JSON document",
}


class _UnfitError(Exception):
    """What is wrong with a file. The message is a sentence without its subject, the file's name."""


@dataclass(frozen=True, slots=True)
class LowRank:
    """The keys under which a file holds the update of one linear layer, alpha / rank * B A.

    `a`, `b` and `alpha` are keys of tensors: (rank, in), (out, rank) and a scalar. Without an alpha tensor,
    `gain` is alpha / rank from the file's header.
    """

    a: str
    b: str
    alpha: str | None
    rank: int
    gain: float


@dataclass(frozen=True, slots=True)
class _Tensor:
    shape: tuple[int, ...]
    dtype: str


class _PeftConfig(BaseModel):
    """The fields of peft's configuration that set a LoRA's strength. diffusers puts it into the header."""

    model_config = ConfigDict(allow_inf_nan=False)

    alpha: float | None = Field(None, validation_alias=AliasChoices("transformer.lora_alpha", "lora_alpha"))
    alphas: dict[str, float] = Field(
        default={}, validation_alias=AliasChoices("transformer.alpha_pattern", "alpha_pattern")
    )
    rslora: bool = Field(False, validation_alias=AliasChoices("transformer.use_rslora", "use_rslora"))

    def gain(self, module: str, rank: int) -> float:
        """Returns alpha / rank of a layer, or 1 when the configuration has no alpha."""
        alpha = next((self.alphas[name] for name in self.alphas if _is_named(module, name)), self.alpha)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def check_lora(path: Path, linears: Linears, *, loc: Loc, name: str) -> dict[str, LowRank]:
    """Returns the keys of each layer's update, by module path. Reads the header only.

    loc: the file's place in the request, for example `("loras", 0, "path")`. name: what messages call the file.
    Raises RequestError unless every tensor of the file belongs to one of `linears` and fits its size.
    """
    try:
        tensors, metadata = _read_header(path)
        return _match_layers(tensors, linears, _peft_config(metadata))
    except _UnfitError as error:
        raise RequestError.at(loc, f"{name} {error}", "lora_load_error") from error


def _read_header(path: Path) -> tuple[dict[str, _Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
            tensors = {key: _Tensor(tuple(item.get_shape()), item.get_dtype()) for key, item in slices.items()}
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise _UnfitError(_describe_content(path, str(error))) from error


def _describe_content(path: Path, fault: str) -> str:
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    for magic, what in OTHER_FORMATS.items():
        if start.startswith(magic):
            return f"is {what}; only safetensors files are read."
    return f"is not a complete safetensors file ({fault}): upload or download it again."


def _peft_config(metadata: Mapping[str, str]) -> _PeftConfig:
    try:
        return _PeftConfig.model_validate_json(metadata.get("lora_adapter_metadata", "{}"))
    except ValidationError as error:
        raise _UnfitError("has damaged lora_adapter_metadata in its header: save it again.") from error


def _match_layers(tensors: Mapping[str, _Tensor], linears: Linears, config: _PeftConfig) -> dict[str, LowRank]:
    _check_supported(tensors)
    parts, leftover = _group_keys(tensors, linears)
    if not parts:
        raise _UnfitError(
            f"holds no LoRA of this model: none of its {len(tensors)} keys belongs to a linear layer of the "
            f"transformer ({first_names(leftover)})."
        )
    layers = {module: _low_rank(module, keys, tensors, linears, config) for module, keys in parts.items()}
    if leftover:
        hint = "Use a LoRA that was trained for this model."
        if all(TEXT_ENCODER.match(key) for key in leftover):
            hint = "They are for the text encoder, which LoRAs do not change here: save it without them."
        raise _UnfitError(
            f"fits only in part: {len(leftover)} of its {len(tensors)} keys belong to no linear layer of "
            f"the transformer ({first_names(leftover)}). {hint}"
        )
    _check_patterns(config, layers)
    return layers


def _check_supported(keys: Collection[str]) -> None:
    for kind, pattern in UNSUPPORTED.items():
        if found := [key for key in keys if pattern.search(key)]:
            raise _UnfitError(
                f"holds {kind} in {len(found)} of its {len(keys)} keys ({first_names(found)}). Only plain LoRAs of"
                " the transformer can be applied: save it as pairs of lora_A and lora_B."
            )


def _group_keys(keys: Iterable[str], linears: Linears) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Returns the keys by module path and part (`a`, `b`, `alpha`), and the keys that belong to no module."""
    modules = {spelling: module for module in linears for spelling in _spellings(module)}
    parts: defaultdict[str, dict[str, str]] = defaultdict(dict)
    leftover = []
    for key in keys:
        match = KEY.fullmatch(key)
        if match is None or match["module"] not in modules:
            leftover.append(key)
            continue
        module = modules[match["module"]]
        other = parts[module].setdefault(PARTS[match["part"]], key)
        if other != key:
            raise _UnfitError(f"has two spellings of one tensor ({other} and {key}): remove one of them.")
    return parts, leftover


def _spellings(module: str) -> set[str]:
    """Returns the names of a module in diffusers and at Lightricks, each also with underscores for dots as in kohya."""
    root, dot, rest = module.partition(".")
    original = ORIGINAL_NAMES.get(root, root) + dot + rest
    return {module, original, module.replace(".", "_"), original.replace(".", "_")}


def _low_rank(
    module: str,
    keys: Mapping[str, str],
    tensors: Mapping[str, _Tensor],
    linears: Linears,
    config: _PeftConfig,
) -> LowRank:
    if not {"a", "b"} <= keys.keys():
        raise _UnfitError(
            f"has only a part of {module} ({first_names(list(keys.values()))}): "
            "lora_A and lora_B come in pairs. Download or save it again."
        )
    for key in keys.values():
        _check_tensor(key, tensors[key], scalar=key == keys.get("alpha"))
    (rank, inputs), (outputs, rank_of_b) = tensors[keys["a"]].shape, tensors[keys["b"]].shape
    if (outputs, inputs) != linears[module]:
        raise _UnfitError(_describe_mismatch(module, (outputs, inputs), linears))
    if rank != rank_of_b or rank == 0:
        raise _UnfitError(f"has a lora_A of rank {rank} with a lora_B of rank {rank_of_b} ({keys['a']}).")
    return LowRank(keys["a"], keys["b"], keys.get("alpha"), rank, config.gain(module, rank))


def _check_tensor(key: str, tensor: _Tensor, *, scalar: bool) -> None:
    if tensor.dtype not in FLOAT_TYPES and not scalar:
        raise _UnfitError(f"is quantised ({key} is {tensor.dtype}): use the file with floating-point weights.")
    if scalar and math.prod(tensor.shape) != 1:
        raise _UnfitError(f"has an alpha that is not one number ({key}).")
    if not scalar and len(tensor.shape) != 2:
        raise _UnfitError(
            f"holds weights with {len(tensor.shape)} dimensions ({key}), as convolutions have. "
            "The layers of this model have two: the LoRA was made for another architecture."
        )


def _describe_mismatch(module: str, found: tuple[int, int], linears: Linears) -> str:
    width = linears["proj_in"][0]
    other = next((size for size, ours in zip(found, linears[module], strict=True) if ours == width != size), None)
    if other is not None:
        return (
            f"was made for a model of width {other}{MODEL_WIDTHS.get(other, '')}, this model has width "
            f"{width}{MODEL_WIDTHS.get(width, '')}: use a LoRA that was trained for this model."
        )
    outputs, inputs = linears[module]
    return (
        f"was made for another model: its {module} turns {found[1]} features into {found[0]}, this model's "
        f"{inputs} into {outputs}."
    )


def _check_patterns(config: _PeftConfig, modules: Iterable[str]) -> None:
    """Raises _UnfitError unless each alpha pattern is the name of a layer.

    peft allows regular expressions here. An untrusted one is not run, so only plain names are accepted.
    """
    unknown = [name for name in config.alphas if not any(_is_named(module, name) for module in modules)]
    if unknown:
        raise _UnfitError(f"has an alpha_pattern that matches no layer by name ({first_names(unknown)}).")


def _is_named(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


def first_names(names: Sequence[str], limit: int = 4) -> str:
    """Returns the first names, each cut to 160 characters: they come from an untrusted file."""
    shown = ", ".join(name[:160] for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
