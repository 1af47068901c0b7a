import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from keyreel.engine.checker import PictureClassifier, TextClassifier
from keyreel.errors import ModelError
from tests.small_models import FORBIDDEN, picture_classifier, text_classifier

CPU = torch.device("cpu")


def plain(level: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_each_picture_is_scored_by_its_own_content(tmp_path: Path) -> None:
    classifier = PictureClassifier(str(picture_classifier(tmp_path)), "SETTING", CPU)
    dark, *others = classifier.scores([plain(20), *[plain(240)] * 10, plain(20, 32, 32)])
    assert list(classifier.labels) == ["normal", "nsfw"]
    assert dark["nsfw"] < 0.1
    assert all(scores["nsfw"] > 0.9 for scores in others[:-1])
    assert others[-1] == pytest.approx(dark)
    assert sum(dark.values()) == pytest.approx(1.0)


def test_the_whole_of_a_long_text_is_scored(tmp_path: Path) -> None:
    """The model reads 64 tokens at once, and the forbidden word is the 301st."""
    classifier = TextClassifier(str(text_classifier(tmp_path)), "SETTING", CPU)
    long = "the red circle " * 100
    fine, short, hidden = classifier.scores([long, f"a {FORBIDDEN} circle", long + FORBIDDEN])
    assert fine["toxic"] < 0.5
    assert short["toxic"] > 0.5
    assert hidden["toxic"] > 0.5
    assert classifier.scores([""])[0]["toxic"] < 0.5


def test_labels_of_a_multi_label_classifier_are_scored_independently(tmp_path: Path) -> None:
    folder = picture_classifier(tmp_path)
    config = folder / "config.json"
    config.write_text(re.sub(r"^{", '{"problem_type": "multi_label_classification",', config.read_text()))
    (scores,) = PictureClassifier(str(folder), "SETTING", CPU).scores([plain(240)])
    assert scores["normal"] == pytest.approx(0.5)  # the sigmoid of a logit of zero
    assert scores["nsfw"] > 0.9


def test_errors_in_a_checkers_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="SETTING: cannot load"):
        PictureClassifier(str(tmp_path / "missing"), "SETTING", CPU)
    folder = picture_classifier(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"does not fit.*classifier\.weight"):
        PictureClassifier(str(folder), "SETTING", CPU)
