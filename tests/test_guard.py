import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keyreel.errors import ModelError, RequestError
from keyreel.guard import Guard, condition_locs
from keyreel.safety.expansion import LocalModel
from keyreel.safety.plan import GuardPlan
from keyreel.settings import Settings
from tests.fake_hub import MAIN, FakeHub
from tests.small_models import FORBIDDEN, picture_classifier, text_classifier

DARK, LIGHT = (np.full((40, 64, 64, 3), level, np.uint8) for level in (20, 240))


def plan(expander: LocalModel | None = None, /, **settings: Any) -> GuardPlan:
    return GuardPlan.from_settings(Settings(**settings), expander, "cpu")


def test_refused_content_is_named_by_its_location(tmp_path: Path) -> None:
    pictures, texts = picture_classifier(tmp_path / "pictures"), text_classifier(tmp_path / "texts")
    settings = {"image_checker": str(pictures), "text_checker": str(texts), "text_checker_labels": "toxic"}
    guard = Guard.load(plan(**settings))
    guard.check_prompts(["the red circle"])
    guard.check_conditions({("images", 0, "image_url"): DARK[:1], ("videos", 0, "video_url"): DARK})
    guard.check_video(DARK)
    one_light_frame = DARK.copy()
    one_light_frame[-1] = 240
    refused: list[tuple[Any, tuple[Any, ...]]] = [
        (lambda: guard.check_prompts(["the circle", f"the {FORBIDDEN} circle"]), ("prompt",)),
        (lambda: guard.check_conditions({("images", 1, "image_url"): LIGHT[:1]}), ("images", 1, "image_url")),
        (lambda: guard.check_conditions({("videos", 0, "video_url"): one_light_frame}), ("videos", 0, "video_url")),
        (lambda: guard.check_video(LIGHT), ()),
    ]
    for check, loc in refused:
        with pytest.raises(RequestError) as caught:
            check()
        (problem,) = caught.value.problems
        assert (problem.type, problem.loc) == ("content_policy_violation", loc)


def test_models_that_cannot_be_loaded_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"KEYREEL_IMAGE_CHECKER: .*missing is neither .*=nudenet"):
        Guard.load(plan(image_checker=str(tmp_path / "missing")))
    with pytest.raises(ModelError, match="KEYREEL_TEXT_CHECKER_LABELS must say"):
        Guard.load(plan(text_checker=str(text_classifier(tmp_path))))
    with pytest.raises(ModelError, match=r"KEYREEL_EXPANDER_MODEL: .*missing is neither"):
        Guard.load(plan(LocalModel(str(tmp_path / "missing"), None, 1.0)))


@pytest.mark.slow
def test_checker_is_downloaded_from_the_hub(tmp_path: Path) -> None:
    """Only its weights and configurations are downloaded."""
    folder = picture_classifier(tmp_path / "repository")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with FakeHub({"owner/nsfw": {MAIN: folder}}).served() as served:
        loaded = load_in_new_process(served, tmp_path, "owner/nsfw")
        missing = load_in_new_process(served, tmp_path, "owner/none")
    assert (loaded.returncode, loaded.stdout) == (0, "normal nsfw\n"), loaded.stderr
    assert {path for path, _ in served.log} == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert "owner/none is not on the hub, or private: check the name" in missing.stderr
    assert "KEYREEL_IMAGE_CHECKER=off" in missing.stderr


def load_in_new_process(hub: FakeHub, folder: Path, checker: str) -> subprocess.CompletedProcess[str]:
    """Loads a checker in a new process, because the hub's client reads its environment once."""
    script = (
        "from keyreel.guard import Guard\n"
        "from keyreel.safety.plan import GuardPlan\n"
        "from keyreel.settings import Settings\n"
        "guard = Guard.load(GuardPlan.from_settings(Settings(), None, 'cpu'))\n"
        "print(*guard.pictures.classifier.labels)"
    )
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hub"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "KEYREEL_IMAGE_CHECKER": checker,
    }
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_condition_places_are_locations_in_the_request() -> None:
    inputs = ["images.0", "images.2", "videos.1", "loras.0.path"]
    assert condition_locs(inputs) == [
        ("images", 0, "image_url"),
        ("images", 2, "image_url"),
        ("videos", 1, "video_url"),
    ]
