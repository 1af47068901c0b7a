from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keyreel.errors import ModelError, RequestError
from keyreel.fal.outcomes import request_failure, status_and_body
from keyreel.safety.moderation import KNOWN_LABELS, NUDENET_LABELS, THRESHOLD, Checker, NudeNet
from keyreel.video.job import Pixels

ASTRONAUT = Path(__file__).parents[1] / "media" / "astronaut.jpg"
"""Eileen Collins, photographed by NASA. In the public domain; from scikit-image, at half the size."""


class Words:
    """A text classifier. Each word of a text is a label, and a tenth of its length is the score."""

    labels = ("rude", "cruel", "NSFW")

    def scores(self, items: Sequence[str]) -> list[Mapping[str, float]]:
        return [{word: len(word) / 10 for word in item.split()} for item in items]


@pytest.fixture(scope="module")
def nudenet() -> NudeNet:
    return NudeNet()


@pytest.fixture
def astronaut() -> Pixels:
    return np.asarray(Image.open(ASTRONAUT))


def test_nudenet_finds_a_face_and_nothing_indecent(nudenet: NudeNet, astronaut: Pixels) -> None:
    sky = np.full_like(astronaut, 128)
    portrait, empty = nudenet.scores([astronaut, sky])
    assert portrait["FACE_FEMALE"] > 0.5
    assert empty == {}
    assert not KNOWN_LABELS & portrait.keys()
    Checker.of(nudenet, "", "SETTING").check([astronaut, sky], ("images", 0), "Send another.")


def test_refusal_is_fals_content_policy_violation(nudenet: NudeNet, astronaut: Pixels) -> None:
    checker = Checker.of(nudenet, "FACE_FEMALE = 0.4, FACE_MALE", "SETTING")
    with pytest.raises(RequestError) as caught:
        checker.check([np.zeros_like(astronaut), astronaut], ("images", 1, "image_url"), "Send another picture.")
    code, body = status_and_body(request_failure(caught.value))
    assert code == 422
    assert body == {
        "detail": [
            {
                "loc": ["body", "images", 1, "image_url"],
                "msg": "The content could not be processed because it contained material flagged by a content checker. "
                "Send another picture.",
                "type": "content_policy_violation",
                "url": "https://docs.fal.ai/errors#content_policy_violation",
                "ctx": {"label": "FACE_FEMALE"},
            }
        ]
    }


def test_score_below_the_threshold_is_allowed(nudenet: NudeNet, astronaut: Pixels) -> None:
    Checker.of(nudenet, "FACE_FEMALE=0.99", "SETTING").check([astronaut], (), "")


def test_number_of_labels_is_that_of_the_model(nudenet: NudeNet) -> None:
    """The package has no public list. The model has four outputs for the box and one per label."""
    outputs = nudenet._detector.onnx_session.get_outputs()[0].shape
    assert outputs[1] == 4 + len(set(NUDENET_LABELS))


@pytest.mark.parametrize(
    ("labels", "thresholds"),
    [
        ("", {"NSFW": THRESHOLD}),
        ("rude", {"rude": THRESHOLD}),
        (" rude = 0.9 ,nsfw=.2,", {"rude": 0.9, "NSFW": 0.2}),
    ],
)
def test_labels_and_thresholds_are_parsed(labels: str, thresholds: dict[str, float]) -> None:
    assert Checker.of(Words(), labels, "SETTING").thresholds == thresholds


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("kind", "SETTING: the checker has no label kind. Its labels: rude, cruel, nsfw."),
        ("rude=much", "'rude=much'"),
        ("rude=50", "'rude=50'"),
    ],
)
def test_invalid_labels_are_refused(labels: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Checker.of(Words(), labels, "SETTING")


def test_checker_without_known_labels_needs_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Words, "labels", ("rude", "cruel"))
    with pytest.raises(ModelError, match="SETTING must say which of the checker's labels to refuse: rude, cruel"):
        Checker.of(Words(), "", "SETTING")


def test_one_indecent_item_of_several_is_refused() -> None:
    checker = Checker.of(Words(), "cruel=0.5", "SETTING")
    checker.check(["rude", ""], (), "")
    with pytest.raises(RequestError):
        checker.check(["rude", "cruel"], (), "")
