"""Safety checkers: what a request brings and what comes of it, against what the operator refuses."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from numpy.typing import NDArray

from keyreel.errors import Loc, ModelError, RequestError
from keyreel.job import Pixels

T_contra = TypeVar("T_contra", contravariant=True)
Item = TypeVar("Item")
Scores = Mapping[str, float]
"""How sure a classifier is of each label, from 0 to 1. A label that is missing was not found."""

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
"""What is refused unless the operator says otherwise: by the default classifier, and by NudeNet."""
NUDENET_LABELS = (
    *("FACE_FEMALE", "FACE_MALE", "ARMPITS_COVERED", "ARMPITS_EXPOSED", "BELLY_COVERED", "BELLY_EXPOSED"),
    *("FEET_COVERED", "FEET_EXPOSED", "BUTTOCKS_COVERED", "BUTTOCKS_EXPOSED", "ANUS_COVERED", "ANUS_EXPOSED"),
    *("FEMALE_BREAST_COVERED", "FEMALE_BREAST_EXPOSED", "MALE_BREAST_EXPOSED"),
    *("FEMALE_GENITALIA_COVERED", "FEMALE_GENITALIA_EXPOSED", "MALE_GENITALIA_EXPOSED"),
)
VIOLATION = "The content could not be processed because it contained material flagged by a content checker."
"""fal's words."""
UNCHECKED = "No safety checker looks at pictures here (KEYREEL_IMAGE_CHECKER): inputs and video are not checked."


class Classifier(Protocol[T_contra]):
    @property
    def labels(self) -> Collection[str]: ...

    def scores(self, items: Sequence[T_contra]) -> list[Scores]:
        """One for each item."""


@dataclass(frozen=True, slots=True)
class Checker(Generic[Item]):
    """A classifier, and the score from which on each label is refused."""

    classifier: Classifier[Item]
    thresholds: Mapping[str, float]

    @classmethod
    def of(cls, classifier: Classifier[Item], labels: str, setting: str) -> Self:
        """labels: `LABEL[=THRESHOLD]`, comma-separated; what is known when empty. Raises ModelError.

        setting: where the labels come from, for the message.
        """
        known = {label.lower(): label for label in classifier.labels}
        wanted = _thresholds(labels, setting) or {label: THRESHOLD for label in KNOWN_LABELS if label.lower() in known}
        if unknown := sorted(label for label in wanted if label.lower() not in known):
            raise ModelError(f"{setting}: the checker knows no {', '.join(unknown)}. It knows {', '.join(known)}.")
        if not wanted:
            raise ModelError(f"{setting} must say which of the checker's labels to refuse: {', '.join(known)}.")
        return cls(classifier, {known[label.lower()]: threshold for label, threshold in wanted.items()})

    def check(self, items: Sequence[Item], loc: Loc, advice: str) -> None:
        """Raises RequestError at the first item that is not allowed. advice: what the user can do about it."""
        for scores in self.classifier.scores(items):
            for label, threshold in self.thresholds.items():
                if scores.get(label, 0.0) >= threshold:
                    raise RequestError.at(loc, f"{VIOLATION} {advice}", "content_policy_violation", label=label)


class NudeNet:
    """Parts of bodies in pictures, by a small detector whose weights lie in the package: works without a network."""

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
        """items: (height, width, 3) each."""
        return [_strongest(self._detector.detect(_bgr(item))) for item in items]


def _bgr(picture: NDArray[Any]) -> NDArray[Any]:
    """As OpenCV reads files, which is what the detector was tuned on."""
    return picture[..., ::-1].copy()


def _strongest(detections: Iterable[Mapping[str, Any]]) -> Scores:
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
            raise ModelError(f"{setting}: {entry!r} is not LABEL or LABEL=THRESHOLD, a number above 0 and up to 1.")
        thresholds[label.strip()] = number
    return thresholds
