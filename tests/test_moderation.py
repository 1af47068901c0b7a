from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keyreel.errors import ModelError, RequestError
from keyreel.failures import failure_answer, failure_of
from keyreel.job import Pixels
from keyreel.moderation import KNOWN_LABELS, NUDENET_LABELS, THRESHOLD, Checker, NudeNet

ASTRONAUT = Path(__file__).parent / "media" / "astronaut.jpg"
"""Eileen Collins, by NASA: in the public domain. From scikit-image, at half the size."""


class Words:
    """A classifier of texts: each word is a label, its length in tenths the score."""

    labels = ("rude", "cruel", "NSFW")

    def scores(self, items: Sequence[str]) -> list[Mapping[str, float]]:
        return [{word: len(word) / 10 for word in item.split()} for item in items]


@pytest.fixture(scope="module")
def nudenet() -> NudeNet:
    return NudeNet()


@pytest.fixture
def astronaut() -> Pixels:
    return np.asarray(Image.open(ASTRONAUT))


def test_a_real_detector_finds_a_face_and_nothing_indecent(nudenet: NudeNet, astronaut: Pixels) -> None:
    sky = np.full_like(astronaut, 128)
    portrait, empty = nudenet.scores([astronaut, sky])
    assert portrait["FACE_FEMALE"] > 0.5
    assert empty == {}
    assert not KNOWN_LABELS & portrait.keys()
    Checker.of(nudenet, "", "SETTING").check([astronaut, sky], ("images", 0), "Send another.")


def test_what_the_operator_refuses_is_refused_in_fals_words(nudenet: NudeNet, astronaut: Pixels) -> None:
    checker = Checker.of(nudenet, "FACE_FEMALE = 0.4, FACE_MALE", "SETTING")
    with pytest.raises(RequestError) as caught:
        checker.check([np.zeros_like(astronaut), astronaut], ("images", 1, "image_url"), "Send another picture.")
    code, body = failure_answer(failure_of(caught.value))
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


def test_a_threshold_is_kept_to(nudenet: NudeNet, astronaut: Pixels) -> None:
    Checker.of(nudenet, "FACE_FEMALE=0.99", "SETTING").check([astronaut], (), "")


def test_the_labels_are_those_of_the_package(nudenet: NudeNet) -> None:
    """It has no public list of them: the number of the model's outputs, four numbers for the box apart."""
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
def test_labels_are_read(labels: str, thresholds: dict[str, float]) -> None:
    assert Checker.of(Words(), labels, "SETTING").thresholds == thresholds


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("kind", "SETTING: the checker knows no kind. It knows rude, cruel, nsfw."),
        ("rude=much", "'rude=much'"),
        ("rude=50", "'rude=50'"),
    ],
)
def test_labels_that_mean_nothing_stop_the_start(labels: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Checker.of(Words(), labels, "SETTING")


def test_a_checker_with_labels_of_its_own_must_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Words, "labels", ("rude", "cruel"))
    with pytest.raises(ModelError, match="SETTING must say which of the checker's labels to refuse: rude, cruel"):
        Checker.of(Words(), "", "SETTING")


def test_each_item_counts_by_itself() -> None:
    checker = Checker.of(Words(), "cruel=0.5", "SETTING")
    checker.check(["rude", ""], (), "")
    with pytest.raises(RequestError):
        checker.check(["rude", "cruel"], (), "")
