"""What recipes need beside the model: a latent upsampler, a LoRA that makes a distilled model of it. Needs no torch."""

import re
from dataclasses import dataclass
from pathlib import Path

from keyreel import hub
from keyreel.catalogue import CATALOGUE
from keyreel.checkpoint import Checkpoint, content_hash, single_file_config
from keyreel.errors import ModelError
from keyreel.hub import HubFiles
from keyreel.recipes import TWO_PASSES, Abilities, Wishes

UPSAMPLER = "latent_upsampler"
"""The upsampler's folder in a model or repository of diffusers' layout."""
UPSAMPLER_FILES = "ltxv-spatial-upscaler-*.safetensors"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(?<!\.safetensors)")
REPOSITORY_FILE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>[\w./-]+\.safetensors)")


@dataclass(frozen=True, slots=True)
class Companions:
    """Files on this machine. upsampler: a folder or a .safetensors file."""

    distilled: bool = False
    upsampler: Path | None = None
    distilled_lora: Path | None = None

    def abilities(self, cache_dir: Path) -> Abilities:
        weights = self.upsampler and weights_of(self.upsampler)
        hashes = (content_hash(path, cache_dir) if path else None for path in (weights, self.distilled_lora))
        return Abilities(self.distilled, *hashes)


def weights_of(upsampler: Path) -> Path:
    """The file with an upsampler's weights, in either layout."""
    return upsampler / "diffusion_pytorch_model.safetensors" if upsampler.is_dir() else upsampler


def expected_abilities(model: Checkpoint, wishes: Wishes) -> Abilities:
    """What the model will be able to do once it is loaded. Downloads nothing."""
    return Abilities(is_distilled(model), _upsampler_source(model, wishes), _lora_source(model, wishes))


def find_companions(model: Checkpoint, wishes: Wishes) -> Companions:
    """Finds what belongs to a model that is on this machine; downloads what is missing. Raises ModelError.

    An upsampler that only the catalogue names may be out of reach: the model then runs without.
    """
    source, lora = _upsampler_source(model, wishes), _lora_source(model, wishes)
    try:
        upsampler = _find_upsampler(source) if source else None
    except ModelError:
        if wishes.upsampler or wishes.recipe in TWO_PASSES:
            raise
        upsampler = None
    return Companions(is_distilled(model), upsampler, _find_lora(lora) if lora else None)


def is_distilled(model: Checkpoint) -> bool:
    """Lightricks' distilled files list the noise levels that they know; other layouts only say it by name."""
    if model.layout == "single-file" and model.path and single_file_config(model.path).get("allowed_inference_steps"):
        return True
    return "distilled" in model.name.lower()


def _lora_source(model: Checkpoint, wishes: Wishes) -> str | None:
    """A distilled model needs none."""
    return None if is_distilled(model) else wishes.distilled_lora


def _upsampler_source(model: Checkpoint, wishes: Wishes) -> str | None:
    """A path or a repository: the operator's, one that lies with the model, or the one that the catalogue names."""
    if wishes.upsampler:
        return wishes.upsampler
    if model.path and (beside := _beside(model.path)):
        return str(beside)
    card = CATALOGUE.get(model.name)
    return card.upsampler if card else None


def _beside(path: Path) -> Path | None:
    if path.is_dir():
        folder = path / UPSAMPLER
        return folder if folder.is_dir() else None
    return max(path.parent.glob(UPSAMPLER_FILES), default=None)


def _find_upsampler(source: str) -> Path:
    path = Path(source).expanduser()
    if not path.exists():
        if not REPOSITORY.fullmatch(source):
            raise ModelError(
                f"KEYREEL_UPSAMPLER: there is no {source}, and no repository (owner/name) has such a name."
            )
        path = hub.fetch(HubFiles(source, (f"{UPSAMPLER}/*",)))
    path = path / UPSAMPLER if (path / UPSAMPLER).is_dir() else path
    if not weights_of(path).is_file():
        raise ModelError(f"{source} holds no latent upsampler: there is no {weights_of(path)}.")
    return path


def _find_lora(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_file():
        return path
    found = REPOSITORY_FILE.fullmatch(source)
    if not found:
        raise ModelError(
            f"KEYREEL_DISTILLED_LORA: there is no {source}, and it is no owner/name/file.safetensors either."
        )
    return hub.fetch_file(found["repo"], found["file"], None)
