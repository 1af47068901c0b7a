"""The models that have a name, and where the files of any model come from. Needs no torch."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from keyreel.checkpoints import hub
from keyreel.checkpoints.checkpoint import (
    PARTS,
    Checkpoint,
    Parameters,
    Stack,
    diffusers_grid,
    original_grid,
    part_files,
    single_file_config,
    split_quantisation,
    tokenizer_files,
)
from keyreel.checkpoints.hub import HubFiles
from keyreel.errors import ModelError
from keyreel.video.canvas import Grid
from keyreel.video.recipes import UNPUBLISHED, Published

WEIGHT_PATTERNS = (
    "model_index.json",
    "scheduler/*.json",
    "transformer/*.json",
    "transformer/*.safetensors",
    "vae/*.json",
    "vae/*.safetensors",
)
TEXT_PATTERNS = ("text_encoder/*.json", "text_encoder/*.safetensors", "tokenizer/*")
HUB_NAME = re.compile(
    rf"(?P<repo>{hub.REPOSITORY.pattern})(/(?P<file>[\w./-]+\.safetensors))?(@(?P<revision>[\w./-]+))?", re.ASCII
)
LTXV_GRID = Grid(spatial=32, temporal=8)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model of the catalogue.

    repo: its repository on the hub. A model without one ships with Keyreel.
    file: the single file in that repository. Without one, the repository is in diffusers' layout.
    sha256: the published hash of that file. size: bytes to download without the text encoder.
    upsampler: the repository or file of its latent upsampler, for the recipe `multiscale`.
    published: how Lightricks runs it (`configs/*.yaml` of github.com/Lightricks/LTX-Video).
    """

    name: str
    summary: str
    licence: str
    repo: str | None = None
    file: str | None = None
    sha256: str | None = None
    parameters: Parameters | None = None
    size: int = 0
    upsampler: str | None = None
    published: Published = UNPUBLISHED


DEMO = Path(__file__).parent.parent / "demo"
LTXV = "Lightricks/LTX-Video"
LTXV_13B = "Lightricks/LTX-Video-0.9.7-dev"
TEXT = HubFiles(LTXV_13B, TEXT_PATTERNS)
"""The text encoder that all versions of LTX-Video share."""
TEXT_SIZE = 19_050_000_000
"""Bytes of the text encoder's files."""
UPSAMPLER_097 = "Lightricks/ltxv-spatial-upscaler-0.9.7"
UPSAMPLER_098 = f"{LTXV}/ltxv-spatial-upscaler-0.9.8.safetensors"
LICENCE = "LTX-Video Open Weights License 0.X"

# tests/engine/test_full_size.py counts these on the models without weights.
T5 = Stack(4_762_310_656, blocks=24, block=192_948_224)
VAE = 1_246_913_522
SIZE_13B = Parameters(Stack(13_042_569_344, blocks=48, block=268_529_664), VAE, T5, width=4096, detail=8)
SIZE_2B = Parameters(Stack(1_923_385_472, blocks=28, block=67_155_968), VAE, T5, width=2048, detail=8)


TWO_PASSES = Published("multiscale", 30)
DISTILLED = Published("multiscale", 8)


def _card_13b(
    name: str,
    summary: str,
    repo: str,
    file: str | None = None,
    sha256: str | None = None,
    upsampler: str = UPSAMPLER_097,
    published: Published = TWO_PASSES,
) -> ModelCard:
    return ModelCard(name, summary, LICENCE, repo, file, sha256, SIZE_13B, 28_600_000_000, upsampler, published)


def _card_2b(
    name: str, summary: str, file: str, published: Published, sha256: str | None = None, upsampler: str | None = None
) -> ModelCard:
    return ModelCard(name, summary, LICENCE, LTXV, file, sha256, SIZE_2B, 6_340_000_000, upsampler, published)


CATALOGUE = {
    card.name: card
    for card in (
        ModelCard(
            name="demo",
            summary="A tiny model of the same architecture. Draws simple moving shapes on a laptop's CPU.",
            licence="Apache-2.0",
        ),
        _card_13b("ltxv-13b-0.9.7-dev", "The model of fal's endpoint.", LTXV_13B),
        _card_13b(
            "ltxv-13b-0.9.7-distilled",
            "Eight steps, no guidance.",
            "Lightricks/LTX-Video-0.9.7-distilled",
            published=DISTILLED,
        ),
        _card_13b(
            "ltxv-13b-0.9.8-dev",
            "Published with the same hash as 0.9.7's single file.",
            LTXV,
            "ltxv-13b-0.9.8-dev.safetensors",
            "56b39a874ef9d0c7ad4099954f0ee4fa7e600ce83a24b3736f9e12223e7c71be",
            UPSAMPLER_098,
        ),
        _card_13b(
            "ltxv-13b-0.9.8-distilled",
            "Eight steps, no guidance.",
            LTXV,
            "ltxv-13b-0.9.8-distilled.safetensors",
            "2c5f814744f04d8118e0b5bbfc0742655b51e41a6c090da66fde2936d651a9c9",
            UPSAMPLER_098,
            replace(DISTILLED, tone_map=0.6),
        ),
        _card_2b(
            "ltxv-2b-0.9.5",
            "Small: the oldest that runs here.",
            "ltx-video-2b-v0.9.5.safetensors",
            Published("stg", 40),
        ),
        _card_2b(
            "ltxv-2b-0.9.6-dev",
            "Small: a seventh of the computation.",
            "ltxv-2b-0.9.6-dev-04-25.safetensors",
            Published("stg", 40),
        ),
        _card_2b(
            "ltxv-2b-0.9.6-distilled",
            "Small, eight steps, no guidance.",
            "ltxv-2b-0.9.6-distilled-04-25.safetensors",
            Published("distilled", 8, stochastic_sampling=True),
            "94891bd4bd08de30d484befbfc54fdcffe6d1596a131baad700b9baa5e1de86b",
        ),
        _card_2b(
            "ltxv-2b-0.9.8-distilled",
            "Small, eight steps, no guidance.",
            "ltxv-2b-0.9.8-distilled.safetensors",
            DISTILLED,
            upsampler=UPSAMPLER_098,
        ),
    )
}


def card_of(checkpoint: Checkpoint) -> ModelCard | None:
    """Returns the card of a model in the catalogue, also when it was chosen by its file or its repository."""
    for card in CATALOGUE.values():
        if checkpoint.name in {card.name, card.file, None if card.file else card.repo}:
            return card
    return None


def catalogue_name(model: str) -> str:
    """Returns the name in the catalogue of a model that was named as for `find_model`, or "" if it has none there.

    Goes by the words alone: files keep the names that Lightricks gave them.
    """
    words = split_quantisation(model)[0].partition("@")[0]
    stem = Path(words).name.removesuffix(".safetensors")
    for card in CATALOGUE.values():
        if card.name in (words, stem) or words == card.repo != LTXV or card.file == f"{stem}.safetensors":
            return card.name
    return ""


def find_model(name: str) -> Checkpoint:
    """Returns the model that a name stands for. Raises ModelError.

    The name is one of the catalogue, a folder, a .safetensors file or a model on the hub: `owner/name` in diffusers'
    layout or `owner/name/file.safetensors`. After a name of the catalogue or the hub, `@revision` selects a branch, tag
    or commit. `+int8` or `+fp8` at the end rounds the transformer.

    For a model on the hub that is not in the catalogue, downloads the file that tells its grid: the autoencoder's
    configuration or the single file. Downloads nothing else.
    """
    plain, quantisation = split_quantisation(name)
    return replace(_find(plain), quantisation=quantisation)


def download(checkpoint: Checkpoint) -> Checkpoint:
    """Downloads the files that are missing and returns the checkpoint with their paths. Raises ModelError."""
    path, text = checkpoint.path, checkpoint.text
    if path is None and checkpoint.weights_from:
        folder = hub.fetch(checkpoint.weights_from)
        path = folder / checkpoint.file if checkpoint.file else folder
        check_identity(checkpoint, path)
    if text is None and checkpoint.text_from:
        text = hub.fetch(checkpoint.text_from)
    if path is None or text is None:
        raise ModelError(f"The files of model {checkpoint.name!r} are missing on this machine.")
    return replace(checkpoint, path=path, text=text)


def missing_size(card: ModelCard, checkpoint: Checkpoint) -> int:
    """Returns how many bytes of a model in the catalogue are still to be downloaded."""
    return card.size * (checkpoint.path is None) + TEXT_SIZE * (checkpoint.text is None and card.size > 0)


def _find(name: str) -> Checkpoint:
    plain, _, revision = name.partition("@")
    if card := CATALOGUE.get(plain):
        return _named(card, revision or None)
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path.resolve().name, path)
    if path.is_file():
        return _single_file(path)
    if found := HUB_NAME.fullmatch(name):
        return _hub(found["repo"], found["file"], found["revision"])
    raise ModelError(
        f"There is no model {name!r}. Choose one of {', '.join(CATALOGUE)}; a folder in diffusers' layout, "
        "a .safetensors file, or on the hub owner/name or owner/name/file.safetensors."
    )


def _named(card: ModelCard, revision: str | None) -> Checkpoint:
    if card.repo is None:
        if not DEMO.is_dir():
            raise ModelError(f"This installation lacks the demo model: there is no {DEMO}. Install a release.")
        return _folder(card.name, DEMO)
    if card.file:
        return _hub_file(card.name, HubFiles(card.repo, (card.file,), revision), card.file, LTXV_GRID)
    weights = HubFiles(card.repo, WEIGHT_PATTERNS, revision)
    return _hub_folder(card.name, weights, TEXT, LTXV_GRID)


def _folder(name: str, path: Path) -> Checkpoint:
    for part in ("transformer", "vae"):
        if not (path / part / "config.json").is_file():
            raise ModelError(f"{path} is not a model in diffusers' layout: it has no {part}/config.json.")
    return Checkpoint(name, "diffusers", diffusers_grid(path / "vae" / "config.json"), path, path)


def _single_file(path: Path) -> Checkpoint:
    if path.suffix != ".safetensors":
        raise ModelError(f"{path} is not a .safetensors file. Keyreel reads no other format: pickles can run code.")
    grid = original_grid(single_file_config(path)["vae"])
    text = path.parent if (path.parent / "text_encoder").is_dir() else _cached_text(TEXT)
    return Checkpoint(path.name, "single-file", grid, path, text, text_from=TEXT)


def _hub(repo: str, file: str | None, revision: str | None) -> Checkpoint:
    """Returns a model that is not in the catalogue. Its grid is read from its files."""
    if file:
        source = HubFiles(repo, (file,), revision)
        folder = hub.cached(source)
        path = folder / file if folder and (folder / file).is_file() else hub.fetch(source) / file
        return _hub_file(Path(file).name, source, file, original_grid(single_file_config(path)["vae"]))
    weights, text = HubFiles(repo, WEIGHT_PATTERNS, revision), HubFiles(repo, TEXT_PATTERNS, revision)
    folder = hub.cached(weights)
    config = folder / "vae" / "config.json" if folder else None
    if config is None or not config.is_file():
        config = hub.fetch_file(repo, "vae/config.json", revision)
    return _hub_folder(repo, weights, text, diffusers_grid(config))


def _hub_folder(name: str, weights: HubFiles, text: HubFiles, grid: Grid) -> Checkpoint:
    return Checkpoint(
        name, "diffusers", grid, _cached_weights(weights), _cached_text(text), weights_from=weights, text_from=text
    )


def _hub_file(name: str, weights: HubFiles, file: str, grid: Grid) -> Checkpoint:
    folder = hub.cached(weights)
    path = folder / file if folder and (folder / file).is_file() else None
    return Checkpoint(
        name, "single-file", grid, path, _cached_text(TEXT), weights_from=weights, text_from=TEXT, file=file
    )


def _cached_weights(files: HubFiles) -> Path | None:
    """Returns the repository's folder on this machine if no file of transformer and autoencoder is missing."""
    folder = hub.cached(files)
    needed = [path for part in PARTS[:2] for path in part_files(folder / part).values()] if folder else []
    return folder if all(path.is_file() for path in needed) else None


def _cached_text(files: HubFiles) -> Path | None:
    folder = hub.cached(files)
    if folder is None:
        return None
    needed = part_files(folder / "text_encoder") | tokenizer_files(folder / "tokenizer")
    return folder if all(path.is_file() for path in needed.values()) else None


def check_identity(checkpoint: Checkpoint, path: Path) -> None:
    """Raises ModelError when the file is not the one that the catalogue's hash names.

    Accepts any file when the operator chose the revision, or when the model is not in the catalogue.
    """
    card = CATALOGUE.get(checkpoint.name)
    if not card or not card.sha256 or (checkpoint.weights_from and checkpoint.weights_from.revision):
        return
    if (found := hub.published_hash(path)) and found != card.sha256:
        raise ModelError(
            f"{card.repo} now has another {card.file}: its SHA-256 is {found}, Keyreel expects {card.sha256}. "
            f"If you trust the new file, use it by its full name: {card.repo}/{card.file}."
        )
