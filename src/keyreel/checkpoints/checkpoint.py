"""The files of a model: their paths, whether they are complete, and what they hold. Needs no torch."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors import SafetensorError, safe_open

from keyreel.checkpoints import hub
from keyreel.checkpoints.hub import HubFiles
from keyreel.errors import ModelError
from keyreel.media.atomic import replacing
from keyreel.video.canvas import Grid

Layout = Literal["diffusers", "single-file"]
Quantisation = Literal["int8", "fp8"]
"""The type in which the transformer's blocks multiply, if not in that of the device."""

PARTS = ("transformer", "vae", "text_encoder")
BLOCK = re.compile(r"(?:^|\.)(?:transformer_blocks|encoder\.block)\.(\d+)\.")
TOKEN_PROJECTION = re.compile(r"(?:^|\.)(?:proj_in|patchify_proj)\.weight$")
PIXEL_PROJECTION = re.compile(r"(?:^|\.)decoder\.conv_out\.conv\.weight$")
WEIGHT_TYPES = {"F32", "F16", "BF16"}
STATISTICS = "per_channel_statistics."
USED_STATISTICS = {"mean-of-means", "std-of-means"}
"""Lightricks' files hold more statistics of the latents, some of them no floats. They serve no computation."""
VOCABULARIES = ("tokenizer.json", "spiece.model")
"""Files of which a tokenizer needs one. Without any, transformers takes every word for an unknown one."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Weight counts of a part that is mostly a stack of equal blocks.

    total: all weights. blocks: the number of blocks. block: weights of the largest block.
    """

    total: int
    blocks: int
    block: int

    @property
    def rest(self) -> int:
        """Weights outside the blocks."""
        return max(self.total - self.blocks * self.block, 0)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Weight counts of a model, and the sizes that decide how much memory its activations take.

    width: values of a token between two transformer blocks. detail: values per pixel between two layers of the
    autoencoder, at its widest point.
    """

    transformer: Stack
    vae: int
    text_encoder: Stack
    width: int
    detail: float

    @property
    def total(self) -> int:
        return self.transformer.total + self.vae + self.text_encoder.total


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's files.

    name: the name to show. For a path, its last part.
    path: the folder (diffusers' layout) or file (Lightricks' layout). None until downloaded.
    text: the folder with `text_encoder` and `tokenizer`, which single files lack. None until downloaded.
    weights_from, text_from: where the files come from, if from the hub. file: the single file's name there.
    quantisation: what the transformer's blocks are rounded to. It halves their memory and changes the video.
    """

    name: str
    layout: Layout
    grid: Grid
    path: Path | None
    text: Path | None
    weights_from: HubFiles | None = None
    text_from: HubFiles | None = None
    file: str | None = None
    quantisation: Quantisation | None = None

    @property
    def is_present(self) -> bool:
        return self.path is not None and self.text is not None

    @property
    def full_name(self) -> str:
        """The name with the quantisation, because videos differ by it."""
        return f"{self.name}+{self.quantisation}" if self.quantisation else self.name


def split_quantisation(name: str) -> tuple[str, Quantisation | None]:
    """Splits a model's name at the suffix `+int8` or `+fp8`, if it has one."""
    for kind in get_args(Quantisation):
        if name.endswith(f"+{kind}"):
            return name.removesuffix(f"+{kind}"), kind
    return name, None


def files(checkpoint: Checkpoint) -> dict[str, Path]:
    """Returns the paths of the model's files by a name that does not depend on the folder. Files may be missing."""
    return _weight_files(checkpoint) | _text_files(checkpoint)


def _weight_files(checkpoint: Checkpoint) -> dict[str, Path]:
    if checkpoint.path is None:
        return {}
    if checkpoint.layout == "single-file":
        return {"model.safetensors": checkpoint.path}
    return part_files(checkpoint.path / "transformer") | part_files(checkpoint.path / "vae")


def _text_files(checkpoint: Checkpoint) -> dict[str, Path]:
    if checkpoint.text is None:
        return {}
    return part_files(checkpoint.text / "text_encoder") | tokenizer_files(checkpoint.text / "tokenizer")


def check_files(checkpoint: Checkpoint) -> None:
    """Raises ModelError if a file is missing, damaged, or holds weights of a type that Keyreel cannot read."""
    for path in files(checkpoint).values():
        if not path.is_file():
            raise ModelError(f"Model {checkpoint.name!r} is incomplete: {path} is missing.")
        if path.suffix == ".safetensors":
            _check_types(path)


def fingerprint(checkpoint: Checkpoint, cache_dir: Path) -> str:
    """Returns a SHA-256 over the content of the model's files. It does not depend on where they are."""
    total = hashlib.sha256()
    for name, path in sorted(files(checkpoint).items()):
        total.update(f"{name} {content_hash(path, cache_dir)}\n".encode())
    return total.hexdigest()


def size_on_disk(checkpoint: Checkpoint) -> int:
    """Returns the bytes of the model's files on this machine."""
    return sum(path.stat().st_size for path in files(checkpoint).values() if path.is_file())


def count_parameters(checkpoint: Checkpoint) -> Parameters:
    """Counts the weights of a model. Reads only the files' headers."""
    totals = dict.fromkeys(PARTS, 0)
    blocks: dict[str, Counter[str]] = {part: Counter() for part in PARTS}
    width, detail = 0, 0.0
    for name, path in files(checkpoint).items():
        if path.suffix != ".safetensors":
            continue
        for key, shape in _tensor_shapes(path):
            part = _part(name, key)
            totals[part] += prod(shape)
            if found := BLOCK.search(key):
                blocks[part][found[1]] += prod(shape)
            if TOKEN_PROJECTION.search(key):
                width = shape[0]
            if PIXEL_PROJECTION.search(key):
                detail = shape[1] / (shape[0] / 3)  # shape[0] / 3: pixels per position
    transformer, text_encoder = (
        Stack(totals[part], len(blocks[part]), max(blocks[part].values(), default=0))
        for part in ("transformer", "text_encoder")
    )
    return Parameters(transformer, totals["vae"], text_encoder, width, detail)


def diffusers_grid(path: Path) -> Grid:
    """Returns the grid of an autoencoder, from its config.json in diffusers' layout. Raises ModelError."""
    config = _read_json(path)
    try:
        space, time = _count_halvings(config)
        return Grid(
            spatial=config.get("spatial_compression_ratio") or config["patch_size"] * 2**space,
            temporal=config.get("temporal_compression_ratio") or config["patch_size_t"] * 2**time,
        )
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path} is not the configuration of LTX-Video's autoencoder.") from error


def original_grid(vae: dict[str, Any]) -> Grid:
    """Returns the grid of an autoencoder, from Lightricks' configuration of it. Raises ModelError."""
    try:
        blocks = [name for name, _ in vae["encoder_blocks"]]
        space = sum(name.startswith(("compress_space", "compress_all")) for name in blocks)
        time = sum(name.startswith(("compress_time", "compress_all")) for name in blocks)
        return Grid(spatial=vae["patch_size"] * 2**space, temporal=2**time)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError("The autoencoder in this file is older than LTX-Video 0.9.5.") from error


def single_file_config(path: Path) -> dict[str, Any]:
    """Returns the configuration in a Lightricks file: `transformer`, `vae`, `scheduler`. Raises ModelError."""
    try:
        with safe_open(path, framework="numpy") as file:
            config: dict[str, Any] = json.loads((file.metadata() or {})["config"])
            kind = config["vae"]["_class_name"], config["transformer"]["_class_name"]
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} does not say what model it holds: its metadata has no valid `config`.") from error
    if kind != ("CausalVideoAutoencoder", "Transformer3DModel"):
        raise ModelError(f"{path} holds a model other than LTX-Video: {', '.join(map(str, kind))}.")
    return config


def part_files(folder: Path) -> dict[str, Path]:
    """Returns the files of one part: its configuration, and its weights in one file or in the shards of its index."""
    stem = "model" if folder.name == "text_encoder" else "diffusion_pytorch_model"
    index = folder / f"{stem}.safetensors.index.json"
    names = [f"{stem}.safetensors"]
    if index.is_file():
        names = _shards(index)
    return {f"{folder.name}/{name}": folder / name for name in ["config.json", *names]}


def _shards(index: Path) -> list[str]:
    """Returns the names of a part's weight files. Raises ModelError for names outside the part's folder."""
    shards = _read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise ModelError(f"Cannot read {index}: it has no valid `weight_map`.")
    names = sorted(set(shards.values()))
    if outside := [name for name in names if Path(name).name != name]:
        raise ModelError(f"{index} names a file outside its folder: {outside[0]}.")
    return names


def tokenizer_files(folder: Path) -> dict[str, Path]:
    """Returns the files of a tokenizer, also those that it needs and that are missing."""
    names = {path.name for path in folder.glob("[!.]*") if path.is_file()} | {"tokenizer_config.json"}
    if names.isdisjoint(VOCABULARIES):
        names.add("spiece.model")
    return {f"tokenizer/{name}": folder / name for name in sorted(names)}


def _count_halvings(config: dict[str, Any]) -> tuple[int, int]:
    """Returns how often the encoder halves (space, time).

    diffusers' own count is wrong for stages that halve only one of them.
    """
    scaling = config["spatio_temporal_scaling"]
    kinds = config.get("downsample_type") or ["conv"] * len(scaling)
    used = [kind for kind, scales in zip(kinds, scaling, strict=False) if scales]
    return sum(kind != "temporal" for kind in used), sum(kind != "spatial" for kind in used)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"Cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"Cannot read {path}: it holds no JSON object.")
    return value


def _part(file: str, key: str) -> str:
    if file != "model.safetensors":
        return file.split("/")[0]
    return "vae" if key.startswith("vae.") else "transformer"


def _tensor_shapes(path: Path) -> Iterator[tuple[str, list[int]]]:
    with safe_open(path, framework="numpy") as file:
        for key in file.keys():  # noqa: SIM118 (not a mapping)
            yield key, file.get_slice(key).get_shape()


def _check_types(path: Path) -> None:
    try:
        with safe_open(path, framework="numpy") as file:
            types = {file.get_slice(key).get_dtype() for key in file.keys() if _is_used(key)}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if any(kind.startswith("F8") for kind in types):
        raise ModelError(
            f"{path} holds fp8 weights, which Keyreel does not support: use the bf16 file. "
            "With +fp8 or +int8 after its name it takes as little memory."
        )
    if unsupported := types - WEIGHT_TYPES:
        raise ModelError(f"{path} holds {', '.join(sorted(unsupported))} weights. Keyreel reads F32, F16 and BF16.")


def _is_used(key: str) -> bool:
    _, is_statistic, name = key.partition(f"vae.{STATISTICS}")
    return not is_statistic or name in USED_STATISTICS


def _damaged(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path} is damaged or cut short ({error}). Download it again.")


def content_hash(path: Path, cache_dir: Path) -> str:
    """Returns the SHA-256 of a file. Keeps it in `cache_dir` until the file's size or modification time changes."""
    blob = path.resolve()
    if hub.published_hash(blob):
        return hub.content_sha256(blob)
    stat = blob.stat()
    version = hashlib.sha256(f"{blob} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
    known = cache_dir / "hashes" / version
    if known.is_file():
        return known.read_text()
    digest = hub.content_sha256(blob)
    known.parent.mkdir(parents=True, exist_ok=True)
    with replacing(known) as partial:
        partial.write_text(digest)
    return digest
