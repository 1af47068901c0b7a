"""Which models there are, and where their files come from. Needs no torch."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from keyreel import hub
from keyreel.canvas import Grid
from keyreel.checkpoint import (
    INT8,
    PARTS,
    Checkpoint,
    Parameters,
    Stack,
    diffusers_grid,
    original_grid,
    part_files,
    single_file_config,
    tokenizer_files,
)
from keyreel.errors import ModelError
from keyreel.hub import HubFiles

WEIGHT_PATTERNS = (
    "model_index.json",
    "scheduler/*.json",
    "transformer/*.json",
    "transformer/*.safetensors",
    "vae/*.json",
    "vae/*.safetensors",
)
TEXT_PATTERNS = ("text_encoder/*.json", "text_encoder/*.safetensors", "tokenizer/*")
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(?<!\.safetensors)")
HUB_NAME = re.compile(rf"(?P<repo>{REPOSITORY.pattern})(/(?P<file>[\w./-]+\.safetensors))?(@(?P<revision>[\w./-]+))?")
LTXV_GRID = Grid(spatial=32, temporal=8)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model that has a name. Without a `repo` it ships with Keyreel, and its files say the rest.

    file: the single file in that repository; without one, the repository is in diffusers' layout.
    sha256: of that file, as published. size: bytes to download, the text encoder apart.
    upsampler: repository of the latent upsampler that belongs to it, for the recipe `multiscale`.
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


DEMO = Path(__file__).parent / "demo"
LTXV = "Lightricks/LTX-Video"
LTXV_13B = "Lightricks/LTX-Video-0.9.7-dev"
TEXT = HubFiles(LTXV_13B, TEXT_PATTERNS)
"""The text encoder that all versions of LTX-Video share."""
TEXT_SIZE = 19_050_000_000
UPSAMPLER = "Lightricks/ltxv-spatial-upscaler-0.9.7"
LICENCE = "LTX-Video Open Weights License 0.X"

# Measured on the models without weights: tests/engine/test_full_size.py.
T5 = Stack(4_762_310_656, blocks=24, block=192_948_224)
VAE = 1_246_913_522
SIZE_13B = Parameters(Stack(13_042_569_344, blocks=48, block=268_529_664), VAE, T5, width=4096, detail=8)
SIZE_2B = Parameters(Stack(1_923_385_472, blocks=28, block=67_155_968), VAE, T5, width=2048, detail=8)


def _card_13b(name: str, summary: str, repo: str, file: str | None = None, sha256: str | None = None) -> ModelCard:
    return ModelCard(name, summary, LICENCE, repo, file, sha256, SIZE_13B, 28_600_000_000, UPSAMPLER)


def _card_2b(name: str, summary: str, file: str, sha256: str | None = None, upsampler: str | None = None) -> ModelCard:
    return ModelCard(name, summary, LICENCE, LTXV, file, sha256, SIZE_2B, 6_340_000_000, upsampler)


CATALOGUE = {
    card.name: card
    for card in (
        ModelCard(
            name="demo",
            summary="Tiny, of the same architecture: simple moving shapes on a laptop's CPU.",
            licence="Apache-2.0",
        ),
        _card_13b("ltxv-13b-0.9.7-dev", "The model of fal's endpoint.", LTXV_13B),
        _card_13b("ltxv-13b-0.9.7-distilled", "Eight steps, no guidance.", "Lightricks/LTX-Video-0.9.7-distilled"),
        _card_13b(
            "ltxv-13b-0.9.8-dev",
            "Published with the same hash as 0.9.7's single file.",
            LTXV,
            "ltxv-13b-0.9.8-dev.safetensors",
            "56b39a874ef9d0c7ad4099954f0ee4fa7e600ce83a24b3736f9e12223e7c71be",
        ),
        _card_13b(
            "ltxv-13b-0.9.8-distilled",
            "Eight steps, no guidance.",
            LTXV,
            "ltxv-13b-0.9.8-distilled.safetensors",
            "2c5f814744f04d8118e0b5bbfc0742655b51e41a6c090da66fde2936d651a9c9",
        ),
        _card_2b("ltxv-2b-0.9.6-dev", "Small: a seventh of the work.", "ltxv-2b-0.9.6-dev-04-25.safetensors"),
        _card_2b(
            "ltxv-2b-0.9.6-distilled",
            "Small, eight steps, no guidance.",
            "ltxv-2b-0.9.6-distilled-04-25.safetensors",
            "94891bd4bd08de30d484befbfc54fdcffe6d1596a131baad700b9baa5e1de86b",
        ),
        _card_2b(
            "ltxv-2b-0.9.8-distilled",
            "Small, eight steps, no guidance.",
            "ltxv-2b-0.9.8-distilled.safetensors",
            upsampler=UPSAMPLER,
        ),
    )
}


def find_model(name: str) -> Checkpoint:
    """The model of that name: in the catalogue, a folder, a .safetensors file or on the hub.

    On the hub: `owner/name` in diffusers' layout, `owner/name/file.safetensors`; there and for names of the catalogue
    `@revision` pins a branch, tag or commit. `+int8` at the end rounds the transformer's weights.
    Downloads nothing but what tells an unknown model's grid: a repository's configuration, or a single file.
    Raises ModelError.
    """
    plain = name.removesuffix(INT8)
    return replace(_find(plain), int8=plain != name)


def download(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint with all files on this machine; fetches what is missing. Raises ModelError."""
    path, text = checkpoint.path, checkpoint.text
    if path is None and checkpoint.weights_from:
        folder = hub.fetch(checkpoint.weights_from)
        path = folder / checkpoint.file if checkpoint.file else folder
        check_identity(checkpoint, path)
    if text is None and checkpoint.text_from:
        text = hub.fetch(checkpoint.text_from)
    if path is None or text is None:
        raise ModelError(f"The files of model {checkpoint.name!r} are missing.")
    return replace(checkpoint, path=path, text=text)


def missing_size(card: ModelCard, checkpoint: Checkpoint) -> int:
    """Bytes of a card's model that are still to be downloaded."""
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
        raise ModelError(f"{path} is not a .safetensors file. Keyreel reads no other: pickles can run code.")
    grid = original_grid(single_file_config(path)["vae"])
    beside = path.parent if (path.parent / "text_encoder").is_dir() else None
    return Checkpoint(path.name, "single-file", grid, path, beside or _cached_text(TEXT), text_from=TEXT)


def _hub(repo: str, file: str | None, revision: str | None) -> Checkpoint:
    """A model that is not in the catalogue: what it is has to be looked up."""
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
    """The repository's folder on this machine, if transformer and autoencoder are whole."""
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
    """Raises ModelError when the hub has another file under a name of the catalogue than it had."""
    card = CATALOGUE.get(checkpoint.name)
    if not card or not card.sha256 or (checkpoint.weights_from and checkpoint.weights_from.revision):
        return
    if (found := hub.published_hash(path)) and found != card.sha256:
        raise ModelError(
            f"{card.repo} now has another {card.file} (SHA-256 {found}) than the one Keyreel knows ({card.sha256}). "
            f"If you trust it, name it yourself: {card.repo}/{card.file}."
        )
