"""Auxiliary weights that some recipes need: a latent upsampler and a distilled LoRA. Needs no torch."""

import re
from dataclasses import dataclass
from pathlib import Path

from keyreel.checkpoints import hub
from keyreel.checkpoints.catalogue import card_of
from keyreel.checkpoints.checkpoint import Checkpoint, content_hash, single_file_config
from keyreel.checkpoints.hub import HubFiles
from keyreel.errors import ModelError
from keyreel.video.recipes import (
    DISTILLED_STEPS,
    TWO_PASSES,
    UNPUBLISHED,
    Capabilities,
    Published,
    RecipeSettings,
    resolved,
)

UPSAMPLER = "latent_upsampler"
"""Folder of the upsampler in a model folder or repository in diffusers' layout."""
UPSAMPLER_FILES = "ltxv-spatial-upscaler-*.safetensors"
"""Names of Lightricks' upsampler files, which may lie next to a single-file model."""
REPOSITORY_FILE = re.compile(rf"(?P<repo>{hub.REPOSITORY.pattern})/(?P<file>[\w./-]+\.safetensors)", re.ASCII)


@dataclass(frozen=True, slots=True)
class AuxiliaryWeights:
    """The auxiliary weights of a model, all on this machine.

    distilled: the model itself is distilled. upsampler: a folder or a .safetensors file. distilled_lora: a LoRA that
    makes a model behave like its distilled version. published: how the model's makers run it.
    """

    distilled: bool = False
    upsampler: Path | None = None
    distilled_lora: Path | None = None
    published: Published = UNPUBLISHED

    def capabilities(self, cache_dir: Path) -> Capabilities:
        """Returns what the model can do with these weights. Hashes the files; `cache_dir` keeps the hashes."""
        weights = self.upsampler and upsampler_weights(self.upsampler)
        upsampler, lora = (content_hash(path, cache_dir) if path else None for path in (weights, self.distilled_lora))
        return Capabilities(self.distilled, upsampler, lora, self.published)


def upsampler_weights(upsampler: Path) -> Path:
    """Returns the file that holds an upsampler's weights, in either layout."""
    return upsampler / "diffusion_pytorch_model.safetensors" if upsampler.is_dir() else upsampler


def expected_capabilities(model: Checkpoint, settings: RecipeSettings) -> Capabilities:
    """Returns what the model will be able to do once it is loaded. Downloads nothing.

    The fields hold the sources of the files in place of their hashes.
    """
    upsampler, lora = _upsampler_source(model, settings), _lora_source(model, settings)
    return Capabilities(is_distilled(model), upsampler, lora, published_by_makers(model))


def find_auxiliary_weights(model: Checkpoint, settings: RecipeSettings) -> AuxiliaryWeights:
    """Finds the auxiliary weights of a model and downloads what is missing. Raises ModelError.

    An upsampler that only the catalogue names is optional: if it cannot be downloaded, the model runs without it.
    """
    source, lora = _upsampler_source(model, settings), _lora_source(model, settings)
    published = published_by_makers(model)
    try:
        upsampler = _find_upsampler(source) if source else None
    except ModelError:
        if settings.upsampler or resolved(settings.recipe, published) in TWO_PASSES:
            raise
        upsampler = None
    return AuxiliaryWeights(is_distilled(model), upsampler, _find_lora(lora) if lora else None, published)


def published_by_makers(model: Checkpoint) -> Published:
    """Returns how the makers of a model run it; of an unknown model, what suits its kind."""
    if card := card_of(model):
        return card.published
    return Published("distilled", DISTILLED_STEPS) if is_distilled(model) else UNPUBLISHED


def is_distilled(model: Checkpoint) -> bool:
    """Whether a model is distilled.

    Lightricks' distilled single files list their allowed noise levels; in other layouts only the name tells.
    """
    if model.layout == "single-file" and model.path and single_file_config(model.path).get("allowed_inference_steps"):
        return True
    return "distilled" in model.name.lower()


def _lora_source(model: Checkpoint, settings: RecipeSettings) -> str | None:
    """Returns the operator's distilled LoRA. A distilled model needs none."""
    return None if is_distilled(model) else settings.distilled_lora


def _upsampler_source(model: Checkpoint, settings: RecipeSettings) -> str | None:
    """Returns a path or repository: the operator's, else one next to the model, else the catalogue's."""
    if settings.upsampler:
        return settings.upsampler
    if model.path and (path := _upsampler_next_to(model.path)):
        return str(path)
    card = card_of(model)
    return card.upsampler if card else None


def _upsampler_next_to(model: Path) -> Path | None:
    if model.is_dir():
        folder = model / UPSAMPLER
        return folder if folder.is_dir() else None
    return max(model.parent.glob(UPSAMPLER_FILES), default=None)


def _find_upsampler(source: str) -> Path:
    path = Path(source).expanduser()
    if not path.exists():
        path = _download_upsampler(source)
    path = path / UPSAMPLER if (path / UPSAMPLER).is_dir() else path
    if not upsampler_weights(path).is_file():
        raise ModelError(f"{source} holds no latent upsampler: {upsampler_weights(path)} is missing.")
    return path


def _download_upsampler(source: str) -> Path:
    if file := REPOSITORY_FILE.fullmatch(source):
        return hub.fetch_file(file["repo"], file["file"], None)
    if hub.REPOSITORY.fullmatch(source):
        return hub.fetch(HubFiles(source, (f"{UPSAMPLER}/*",)))
    raise ModelError(
        f"KEYREEL_UPSAMPLER: there is no {source} on this machine, and it is neither a repository (owner/name) nor a "
        "file in one (owner/name/file.safetensors)."
    )


def _find_lora(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_file():
        return path
    found = REPOSITORY_FILE.fullmatch(source)
    if not found:
        raise ModelError(
            f"KEYREEL_DISTILLED_LORA: there is no {source} on this machine, and it is not a file on the hub "
            "(owner/name/file.safetensors)."
        )
    return hub.fetch_file(found["repo"], found["file"], None)
