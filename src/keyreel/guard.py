"""What stands around the video model: the prompt expander and the safety checkers that run on this machine."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from keyreel import hub
from keyreel.catalogue import REPOSITORY
from keyreel.errors import Loc, ModelError
from keyreel.expansion import ChatServer, LocalModel
from keyreel.hub import HubFiles
from keyreel.job import Pixels
from keyreel.media.samples import spread
from keyreel.moderation import CLASSIFIER, NUDENET, Checker, NudeNet
from keyreel.schema import Request
from keyreel.settings import Settings

if TYPE_CHECKING:
    from keyreel.engine.expander import LocalExpander

PATTERNS = ("*.json", "*.jinja", "*.model", "*.safetensors", "*.txt")
"""Of transformers' files. No pickles."""
CONDITIONS = {"images": "image_url", "videos": "video_url"}
ADVICE = {
    "prompt": "Change the prompt.",
    "images": "Send another picture.",
    "videos": "Send another clip.",
    "video": "It was in the video that the model made, which is not kept. Change the prompt or the seed.",
}


@dataclass(frozen=True, slots=True)
class GuardPlan:
    """What is to be loaded. pictures, texts: a checker's name. Only what a process other than ours may know."""

    expander: LocalModel | None
    pictures: str | None
    picture_labels: str
    texts: str | None
    text_labels: str
    frames: int
    device: str

    @classmethod
    def of(cls, settings: Settings, expander: ChatServer | LocalModel | None, video_device: str) -> Self:
        """video_device: where the video model runs."""
        return cls(
            expander=expander if isinstance(expander, LocalModel) else None,
            pictures=_picture_checker(settings.image_checker, video_device),
            picture_labels=settings.image_checker_labels,
            texts=settings.text_checker,
            text_labels=settings.text_checker_labels,
            frames=settings.checked_frames,
            device=settings.guard_device,
        )

    @property
    def checks(self) -> bool:
        return bool(self.pictures or self.texts)

    def needed_for(self, request: Request) -> Self:
        """As much of it as one request asks for."""
        plan = self if request.expand_prompt else replace(self, expander=None)
        return plan if request.enable_safety_checker else replace(plan, pictures=None, texts=None)


@dataclass(frozen=True)
class Guard:
    expander: "LocalExpander | None"
    pictures: Checker[Pixels] | None
    texts: Checker[str] | None
    frames: int

    @classmethod
    def load(cls, plan: GuardPlan) -> Self:
        """Raises ModelError."""
        return cls(
            expander=_load_expander(plan.expander, plan.device) if plan.expander else None,
            pictures=_load_pictures(plan.pictures, plan.picture_labels, plan.device) if plan.pictures else None,
            texts=_load_texts(plan.texts, plan.text_labels, plan.device) if plan.texts else None,
            frames=plan.frames,
        )

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """The prompt, and what became of it. Raises RequestError."""
        if self.texts:
            self.texts.check(prompts, ("prompt",), ADVICE["prompt"])

    def check_conditions(self, conditions: Mapping[Loc, Pixels]) -> None:
        """Pictures and clips, (frames, height, width, 3) each, by their place in the request. Raises RequestError."""
        for loc, frames in conditions.items():
            self._check(frames[spread(len(frames), self.frames)], loc, ADVICE[str(loc[0])])

    def check_video(self, frames: Pixels) -> None:
        """Frames of what the model made. Raises RequestError."""
        self._check(frames, (), ADVICE["video"])

    def expand(self, prompt: str, seed: int, picture: NDArray[Any] | None) -> str:
        """picture: (height, width, 3), what the video starts from. Raises ExpansionError."""
        if self.expander is None:
            raise ModelError("No expander was loaded.")
        return self.expander.expand(prompt, seed, picture)

    def _check(self, frames: Pixels, loc: Loc, advice: str) -> None:
        if self.pictures:
            self.pictures.check(list(np.asarray(frames)), loc, advice)


def condition_places(inputs: Iterable[str]) -> list[Loc]:
    """Where each of a job's conditions is in the request. inputs: the keys of `Prepared.inputs`."""
    split = (place.split(".") for place in inputs)
    return [(kind, int(index), CONDITIONS[kind]) for kind, index, *_ in split if kind in CONDITIONS]


def _picture_checker(name: str, video_device: str) -> str | None:
    match name:
        case "off":
            return None
        case "auto":
            return CLASSIFIER if video_device.startswith("cuda") else None
    return name


# Kept, for a program that makes several videos with one call after the other.
@lru_cache(maxsize=1)
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
            f"{error} {setting}=nudenet needs no download, {setting}=off switches the check off."
        ) from None
    classifier = PictureClassifier(folder, setting, choose_device(device))
    return Checker.of(classifier, labels, f"{setting}_LABELS")


@lru_cache(maxsize=1)
def _load_texts(name: str, labels: str, device: str) -> Checker[str]:
    from keyreel.engine.checker import TextClassifier
    from keyreel.engine.devices import choose_device

    setting = "KEYREEL_TEXT_CHECKER"
    classifier = TextClassifier(_folder(name, setting), setting, choose_device(device))
    return Checker.of(classifier, labels, f"{setting}_LABELS")


@lru_cache(maxsize=1)
def _load_expander(models: LocalModel, device: str) -> "LocalExpander":
    from keyreel.engine.devices import choose_device
    from keyreel.engine.expander import LocalExpander

    vision = models.vision_model and _folder(models.vision_model, "KEYREEL_EXPANDER_VISION_MODEL")
    here = replace(models, model=_folder(models.model, "KEYREEL_EXPANDER_MODEL"), vision_model=vision)
    return LocalExpander(here, choose_device(device))


def _folder(name: str, setting: str) -> str:
    """A model's files on this machine. Downloads what is missing. Raises ModelError."""
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if REPOSITORY.fullmatch(name):
        return str(hub.fetch(HubFiles(name, PATTERNS)))
    raise ModelError(f"{setting}: {name} is neither a folder nor a repository on the hub (owner/name).")
