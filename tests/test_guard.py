import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keyreel.errors import ModelError, RequestError
from keyreel.expansion import ChatServer, LocalModel
from keyreel.guard import Guard, GuardPlan, condition_places
from keyreel.moderation import CLASSIFIER
from keyreel.schema import Request
from keyreel.settings import Settings
from tests.fake_hub import MAIN, FakeHub
from tests.small_models import FORBIDDEN, picture_classifier, text_classifier

LOCAL = LocalModel("owner/llama", None, 60.0)
REMOTE = ChatServer("http://here/v1", "llama", "secret", None, 60.0)
DARK, LIGHT = (np.full((40, 64, 64, 3), level, np.uint8) for level in (20, 240))


def plan(video_device: str = "cpu", **settings: Any) -> GuardPlan:
    return GuardPlan.of(Settings(**settings), LOCAL, video_device)


def test_gpu_installs_check_pictures_unless_told_otherwise() -> None:
    assert plan("cuda:0").pictures == CLASSIFIER
    assert plan("cpu").pictures is None
    assert plan("mps").pictures is None
    assert plan("cuda:0", image_checker="off").pictures is None
    assert plan("cpu", image_checker="nudenet").pictures == "nudenet"


def test_only_what_runs_here_is_planned() -> None:
    assert GuardPlan.of(Settings(), LOCAL, "cpu").expander == LOCAL
    assert GuardPlan.of(Settings(), REMOTE, "cpu").expander is None
    assert "secret" not in repr(GuardPlan.of(Settings(expander_key="secret"), REMOTE, "cpu"))


def test_a_request_needs_no_more_than_it_asks_for() -> None:
    whole = plan("cuda", text_checker="owner/toxic")
    assert whole.needed_for(Request(prompt="p", expand_prompt=True)) == whole
    assert whole.needed_for(Request(prompt="p")) == replace(whole, expander=None)
    assert not whole.needed_for(Request(prompt="p", enable_safety_checker=False)).checks


def test_everything_is_checked_at_its_place(tmp_path: Path) -> None:
    pictures, texts = picture_classifier(tmp_path / "pictures"), text_classifier(tmp_path / "texts")
    settings = {"image_checker": str(pictures), "text_checker": str(texts), "text_checker_labels": "toxic"}
    guard = Guard.load(replace(plan(**settings), expander=None))
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


def test_a_checker_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"KEYREEL_IMAGE_CHECKER: .*missing is neither .*=nudenet"):
        Guard.load(replace(plan(image_checker=str(tmp_path / "missing")), expander=None))
    with pytest.raises(ModelError, match="KEYREEL_TEXT_CHECKER_LABELS must say"):
        Guard.load(replace(plan(text_checker=str(text_classifier(tmp_path))), expander=None))
    with pytest.raises(ModelError, match=r"KEYREEL_EXPANDER_MODEL: .*missing is neither"):
        Guard.load(GuardPlan.of(Settings(), LocalModel(str(tmp_path / "missing"), None, 1.0), "cpu"))


def test_a_checker_comes_from_the_hub(tmp_path: Path) -> None:
    """Its weights and configurations, and nothing else that lies there."""
    folder = picture_classifier(tmp_path / "repository")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with FakeHub({"owner/nsfw": {MAIN: folder}}).served() as served:
        loaded = load_in_a_process(served, tmp_path, "owner/nsfw")
        missing = load_in_a_process(served, tmp_path, "owner/none")
    assert (loaded.returncode, loaded.stdout) == (0, "normal nsfw\n"), loaded.stderr
    assert {path for path, _ in served.log} == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert "Cannot get owner/none from the hub: check the name" in missing.stderr
    assert "KEYREEL_IMAGE_CHECKER=off" in missing.stderr


def load_in_a_process(hub: FakeHub, folder: Path, checker: str) -> subprocess.CompletedProcess[str]:
    """The hub's client reads its environment once."""
    script = (
        "from keyreel.guard import *\n"
        "guard = Guard.load(GuardPlan.of(Settings(), None, 'cpu'))\n"
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


def test_conditions_are_found_in_the_request() -> None:
    inputs = ["images.0", "images.2", "videos.1", "loras.0.path"]
    assert condition_places(inputs) == [
        ("images", 0, "image_url"),
        ("images", 2, "image_url"),
        ("videos", 1, "video_url"),
    ]
