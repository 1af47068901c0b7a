"""The guard: the prompt expander and the safety checkers that run on this machine."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from keyreel.checkpoints import hub
from keyreel.checkpoints.hub import HubFiles
from keyreel.errors import Loc, ModelError
from keyreel.fal.schema import SOURCE_FIELDS
from keyreel.media.samples import evenly_spaced
from keyreel.safety.expansion import LocalModel
from keyreel.safety.moderation import NUDENET, Checker, NudeNet
from keyreel.safety.plan import GuardPlan
from keyreel.video.job import Pixels

if TYPE_CHECKING:
    from keyreel.engine.expander import LocalExpander

PATTERNS = ("*.json", "*.jinja", "*.model", "*.safetensors", "*.txt")
"""The files to download for a transformers model. No pickles."""
ADVICE = {
    "prompt": "Change the prompt.",
    "images": "Send another picture.",
    "videos": "Send another clip.",
    "video": "It was in the generated video, which is not kept. Change the prompt or the seed.",
}


@dataclass(frozen=True)
class Guard:
    """The expander and the checkers of a plan. Each is loaded when first used; `load` loads all immediately."""

    plan: GuardPlan

    @classmethod
    def load(cls, plan: GuardPlan) -> Self:
        """Loads the expander and all checkers of a plan. Raises ModelError."""
        guard = cls(plan)
        _ = guard.expander, guard.pictures, guard.texts
        return guard

    @cached_property
    def expander(self) -> "LocalExpander | None":
        return _load_expander(self.plan.expander, self.plan.device) if self.plan.expander else None

    @cached_property
    def pictures(self) -> Checker[Pixels] | None:
        plan = self.plan
        return _load_pictures(plan.pictures, plan.picture_labels, plan.device) if plan.pictures else None

    @cached_property
    def texts(self) -> Checker[str] | None:
        plan = self.plan
        return _load_texts(plan.texts, plan.text_labels, plan.device) if plan.texts else None

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Checks the prompt and its expansion. Raises RequestError."""
        if self.texts:
            self.texts.check(prompts, ("prompt",), ADVICE["prompt"])

    def check_conditions(self, conditions: Mapping[Loc, Pixels]) -> None:
        """Checks pictures and clips, (frames, height, width, 3), by location in the request. Raises RequestError."""
        for loc, frames in conditions.items():
            self._check(frames[evenly_spaced(len(frames), self.plan.frames)], loc, ADVICE[str(loc[0])])

    def check_video(self, frames: Pixels) -> None:
        """Checks frames of the generated video. Raises RequestError."""
        self._check(frames, (), ADVICE["video"])

    def expand(self, prompt: str, seed: int, picture: NDArray[Any] | None) -> str:
        """Returns the expanded prompt. picture: the first frame, (height, width, 3). Raises ExpansionError."""
        if self.expander is None:
            raise ModelError("No expander was loaded.")
        return self.expander.expand(prompt, seed, picture)

    def _check(self, frames: Pixels, loc: Loc, advice: str) -> None:
        if self.pictures:
            self.pictures.check(list(np.asarray(frames)), loc, advice)


def condition_locs(inputs: Iterable[str]) -> list[Loc]:
    """Returns the location in the request of each of a job's conditions. inputs: the keys of `Prepared.inputs`."""
    parts = (place.split(".") for place in inputs)
    return [(kind, int(index), SOURCE_FIELDS[kind]) for kind, index, *_ in parts if kind != "loras"]


def _load_pictures(name: str, labels: str, device: str) -> Checker[Pixels]:
    setting = "KEYREEL_IMAGE_CHECKER"
    if name == NUDENET:
        return Checker.of(NudeNet(), labels, f"{setting}_LABELS")
    from keyreel.engine.checker import PictureClassifier
    from keyreel.engine.devices import choose_device

    try:
        folder = _folder(name, setting)
    except ModelError as error:
        raise ModelError(
            f"{error} {setting}=nudenet needs no download. {setting}=off switches the check off."
        ) from None
    classifier = PictureClassifier(folder, setting, choose_device(device))
    return Checker.of(classifier, labels, f"{setting}_LABELS")


def _load_texts(name: str, labels: str, device: str) -> Checker[str]:
    from keyreel.engine.checker import TextClassifier
    from keyreel.engine.devices import choose_device

    setting = "KEYREEL_TEXT_CHECKER"
    classifier = TextClassifier(_folder(name, setting), setting, choose_device(device))
    return Checker.of(classifier, labels, f"{setting}_LABELS")


def _load_expander(models: LocalModel, device: str) -> "LocalExpander":
    from keyreel.engine.devices import choose_device
    from keyreel.engine.expander import LocalExpander

    vision = models.vision_model and _folder(models.vision_model, "KEYREEL_EXPANDER_VISION_MODEL")
    local = replace(models, model=_folder(models.model, "KEYREEL_EXPANDER_MODEL"), vision_model=vision)
    return LocalExpander(local, choose_device(device))


def _folder(name: str, setting: str) -> str:
    """Returns the folder of a model. Downloads missing files. Raises ModelError."""
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if hub.REPOSITORY.fullmatch(name):
        return str(hub.fetch(HubFiles(name, PATTERNS)))
    raise ModelError(f"{setting}: {name} is neither a folder nor a hub repository (owner/name).")
