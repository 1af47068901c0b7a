"""Which models there are, and where their files come from. Needs no torch."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from keyreel.canvas import Grid
from keyreel.checkpoint import (
    PARTS,
    Checkpoint,
    Parameters,
    diffusers_grid,
    original_grid,
    part_files,
    single_file_config,
    tokenizer_files,
)
from keyreel.errors import ModelError

GIB = 2**30
TEXT_PATTERNS = ("text_encoder/*.json", "text_encoder/*.safetensors", "tokenizer/*")
PATTERNS = (
    "model_index.json",
    "scheduler/*.json",
    "transformer/*.json",
    "transformer/*.safetensors",
    "vae/*.json",
    "vae/*.safetensors",
    *TEXT_PATTERNS,
)
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model that has a name. Without a `repo` it ships with Keyreel, and its files say the rest.

    download_size: bytes. working_memory: bytes beside the weights for a 720p video of 89 frames, in bf16.
    """

    name: str
    summary: str
    licence: str
    repo: str | None = None
    grid: Grid | None = None
    parameters: Parameters | None = None
    download_size: int = 0
    working_memory: int = GIB


DEMO = Path(__file__).parent / "demo"
LTXV_13B = "Lightricks/LTX-Video-0.9.7-dev"
CATALOGUE = {
    card.name: card
    for card in (
        ModelCard(
            name="demo",
            summary="Tiny, of the same architecture: simple moving shapes on a laptop's CPU.",
            licence="Apache-2.0",
        ),
        ModelCard(
            name="ltxv-13b-0.9.7-dev",
            summary="LTX-Video 0.9.7 for a GPU with 48 GB or more.",
            licence="LTX-Video Open Weights License (0.9.7)",
            repo=LTXV_13B,
            grid=Grid(spatial=32, temporal=8),
            parameters=Parameters(transformer=13_042_569_344, vae=1_246_913_522, text_encoder=4_762_310_656),
            download_size=46_500_000_000,
            working_memory=8 * GIB,
        ),
    )
}


def find_model(name: str) -> Checkpoint:
    """The model of that name: in the catalogue, a folder, a .safetensors file or a repository on the hub.

    Downloads nothing but an unknown repository's configuration. Raises ModelError.
    """
    if card := CATALOGUE.get(name):
        return _named(card)
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(path.resolve().name, path)
    if path.is_file():
        return _single_file(path)
    if path.suffix != ".safetensors" and REPOSITORY.fullmatch(name):
        return _hub(name)
    raise ModelError(
        f"There is no model {name!r}. Choose {' or '.join(CATALOGUE)}, a folder in diffusers' layout, "
        "a .safetensors file, or a repository on the hub (owner/name)."
    )


def download(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint with all files on this machine; fetches what is missing. Raises ModelError."""
    if checkpoint.is_present:
        return checkpoint
    if checkpoint.repo is None:
        raise ModelError(f"The files of model {checkpoint.name!r} are missing.")
    if checkpoint.path is not None:
        return replace(checkpoint, text=_fetch(checkpoint.repo, TEXT_PATTERNS))
    folder = _fetch(checkpoint.repo, PATTERNS)
    return replace(checkpoint, path=folder, text=folder)


def _named(card: ModelCard) -> Checkpoint:
    if card.repo is None:
        if not DEMO.is_dir():
            raise ModelError(f"This installation lacks the demo model: there is no {DEMO}. Install a release.")
        return _folder(card.name, DEMO)
    folder = _cached(card.repo, PATTERNS)
    return Checkpoint(card.name, "diffusers", card.grid or _grid(card.repo), folder, folder, card.repo)


def _folder(name: str, path: Path) -> Checkpoint:
    for part in ("transformer", "vae"):
        if not (path / part / "config.json").is_file():
            raise ModelError(f"{path} is not a model in diffusers' layout: it has no {part}/config.json.")
    return Checkpoint(name, "diffusers", diffusers_grid(path / "vae" / "config.json"), path, path, None)


def _single_file(path: Path) -> Checkpoint:
    if path.suffix != ".safetensors":
        raise ModelError(f"{path} is not a .safetensors file. Keyreel reads no other: pickles can run code.")
    grid = original_grid(single_file_config(path)["vae"])
    beside = path.parent if (path.parent / "text_encoder").is_dir() else None
    text = beside or _cached(LTXV_13B, TEXT_PATTERNS)
    return Checkpoint(path.name, "single-file", grid, path, text, LTXV_13B)


def _hub(repo: str) -> Checkpoint:
    folder = _cached(repo, PATTERNS)
    grid = diffusers_grid(folder / "vae" / "config.json") if folder else _grid(repo)
    return Checkpoint(repo, "diffusers", grid, folder, folder, repo)


def _cached(repo: str, patterns: tuple[str, ...]) -> Path | None:
    """The repository's files on this machine, if all are."""
    try:
        folder = Path(snapshot_download(repo, allow_patterns=list(patterns), local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    parts = PARTS if patterns == PATTERNS else ("text_encoder",)
    needed = tokenizer_files(folder / "tokenizer")
    for part in parts:
        needed |= part_files(folder / part)
    return folder if all(path.is_file() for path in needed.values()) else None


def _fetch(repo: str, patterns: tuple[str, ...]) -> Path:
    try:
        return Path(snapshot_download(repo, allow_patterns=list(patterns)))
    except Exception as error:
        raise _unavailable(repo, error) from error


def _grid(repo: str) -> Grid:
    try:
        config = Path(hf_hub_download(repo, "vae/config.json"))
    except Exception as error:
        raise _unavailable(repo, error) from error
    return diffusers_grid(config)


def _unavailable(repo: str, error: Exception) -> ModelError:
    match error:
        case GatedRepoError():
            advice = f"accept its licence at https://huggingface.co/{repo}, then run `hf auth login`"
        case RepositoryNotFoundError():
            advice = "check the name; for a private repository run `hf auth login`"
        case LocalEntryNotFoundError():
            advice = "it is not on this machine and the hub cannot be reached (is HF_HUB_OFFLINE set?)"
        case EntryNotFoundError():
            advice = "it holds no model in diffusers' layout"
        case _:
            advice = str(error).partition("\n")[0].rstrip(".")
    return ModelError(f"Cannot get {repo} from the hub: {advice}.")
