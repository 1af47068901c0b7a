"""Safety checkers: classify prompts, inputs and videos, and refuse the labels that the operator chose."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from numpy.typing import NDArray

from keyreel.errors import Loc, ModelError, RequestError
from keyreel.video.job import Pixels

T_contra = TypeVar("T_contra", contravariant=True)
Item = TypeVar("Item")
Scores = Mapping[str, float]
"""A classifier's confidence in each label, from 0 to 1. A missing label was not detected."""

CLASSIFIER = "Falconsai/nsfw_image_detection"
NUDENET = "nudenet"
THRESHOLD = 0.5
KNOWN_LABELS = frozenset(
    {
        "nsfw",
        "ANUS_EXPOSED",
        "BUTTOCKS_EXPOSED",
        "FEMALE_BREAST_EXPOSED",
        "FEMALE_GENITALIA_EXPOSED",
        "MALE_GENITALIA_EXPOSED",
    }
)
"""Labels of the default classifier and of NudeNet that are refused unless the operator chooses others."""
NUDENET_LABELS = (
    *("FACE_FEMALE", "FACE_MALE", "ARMPITS_COVERED", "ARMPITS_EXPOSED", "BELLY_COVERED", "BELLY_EXPOSED"),
    *("FEET_COVERED", "FEET_EXPOSED", "BUTTOCKS_COVERED", "BUTTOCKS_EXPOSED", "ANUS_COVERED", "ANUS_EXPOSED"),
    *("FEMALE_BREAST_COVERED", "FEMALE_BREAST_EXPOSED", "MALE_BREAST_EXPOSED"),
    *("FEMALE_GENITALIA_COVERED", "FEMALE_GENITALIA_EXPOSED", "MALE_GENITALIA_EXPOSED"),
)
VIOLATION = "The content could not be processed because it contained material flagged by a content checker."
"""fal's wording."""
UNCHECKED = "No image checker is active here (KEYREEL_IMAGE_CHECKER): the inputs and the video are not checked."


class Classifier(Protocol[T_contra]):
    """Assigns scores to texts or pictures."""

    @property
    def labels(self) -> Collection[str]: ...

    def scores(self, items: Sequence[T_contra]) -> list[Scores]:
        """Returns the scores of each item."""


@dataclass(frozen=True, slots=True)
class Checker(Generic[Item]):
    """A classifier with the minimum score at which each label is refused."""

    classifier: Classifier[Item]
    thresholds: Mapping[str, float]

    @classmethod
    def of(cls, classifier: Classifier[Item], labels: str, setting: str) -> Self:
        """Creates a checker. Raises ModelError if the classifier lacks a label.

        labels: `LABEL[=THRESHOLD]`, comma-separated; KNOWN_LABELS if empty. setting: where they come from, for errors.
        """
        known = {label.lower(): label for label in classifier.labels}
        wanted = _thresholds(labels, setting) or {label: THRESHOLD for label in KNOWN_LABELS if label.lower() in known}
        if unknown := sorted(label for label in wanted if label.lower() not in known):
            missing = ", ".join(unknown)
            raise ModelError(f"{setting}: the checker has no label {missing}. Its labels: {', '.join(known)}.")
        if not wanted:
            raise ModelError(f"{setting} must say which of the checker's labels to refuse: {', '.join(known)}.")
        return cls(classifier, {known[label.lower()]: threshold for label, threshold in wanted.items()})

    def check(self, items: Sequence[Item], loc: Loc, advice: str) -> None:
        """Raises RequestError if an item is refused. advice: tells the user what to do."""
        for scores in self.classifier.scores(items):
            for label, threshold in self.thresholds.items():
                if scores.get(label, 0.0) >= threshold:
                    raise RequestError.at(loc, f"{VIOLATION} {advice}", "content_policy_violation", label=label)


class NudeNet:
    """Detects body parts in pictures. The detector is small and its package contains the weights: no download."""

    def __init__(self) -> None:
        try:
            from nudenet import NudeDetector
        except ImportError as error:
            raise ModelError(
                f"The safety checker cannot be loaded ({error.name} is missing): pip install 'keyreel[nudenet]', "
                "or choose another one with KEYREEL_IMAGE_CHECKER."
            ) from None
        self._detector = NudeDetector()
        self.labels: Collection[str] = NUDENET_LABELS

    def scores(self, items: Sequence[Pixels]) -> list[Scores]:
        """Returns the scores of each picture, (height, width, 3)."""
        return [_highest(self._detector.detect(_bgr(item))) for item in items]


def _bgr(picture: NDArray[Any]) -> NDArray[Any]:
    """Converts to BGR, the order in which OpenCV reads files: the detector was tuned on it."""
    return picture[..., ::-1].copy()


def _highest(detections: Iterable[Mapping[str, Any]]) -> Scores:
    best: dict[str, float] = {}
    for detection in detections:
        best[detection["class"]] = max(best.get(detection["class"], 0.0), detection["score"])
    return best


def _thresholds(labels: str, setting: str) -> dict[str, float]:
    thresholds = {}
    for entry in filter(None, (entry.strip() for entry in labels.split(","))):
        label, _, threshold = entry.partition("=")
        try:
            number = float(threshold) if threshold else THRESHOLD
        except ValueError:
            number = 0.0
        if not 0 < number <= 1:
            raise ModelError(f"{setting}: {entry!r} is not LABEL or LABEL=THRESHOLD with a threshold above 0, up to 1.")
        thresholds[label.strip()] = number
    return thresholds
