"""The plan of the guard process: the prompt expander and the checkers that run on this machine."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from keyreel.fal.schema import Request
from keyreel.safety.expansion import LocalModel
from keyreel.safety.moderation import CLASSIFIER
from keyreel.settings import Settings

if TYPE_CHECKING:
    from keyreel.safety.chat import ChatServer  # type only: processes that read plans must not import aiohttp


@dataclass(frozen=True, slots=True)
class GuardPlan:
    """What the guard process loads. Contains no secrets.

    pictures, texts: names of the checkers. frames: number of frames to check in a clip or video. device: runs the
    expander and the checkers.
    """

    expander: LocalModel | None
    pictures: str | None
    picture_labels: str
    texts: str | None
    text_labels: str
    frames: int
    device: str

    @classmethod
    def from_settings(cls, settings: Settings, expander: "ChatServer | LocalModel | None", video_device: str) -> Self:
        """Returns the plan. expander: from `find_expander`. video_device: runs the video model."""
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
        """True if the plan has any checker."""
        return bool(self.pictures or self.texts)

    def needed_for(self, request: Request) -> Self:
        """Returns the part of the plan that a request asks for."""
        plan = self if request.expand_prompt else replace(self, expander=None)
        return plan if request.enable_safety_checker else replace(plan, pictures=None, texts=None)


def _picture_checker(name: str, video_device: str) -> str | None:
    match name:
        case "off":
            return None
        case "auto":
            return CLASSIFIER if video_device.startswith("cuda") else None
    return name
