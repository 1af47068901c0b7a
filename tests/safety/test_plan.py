from dataclasses import replace
from typing import Any

from keyreel.fal.schema import Request
from keyreel.safety.chat import ChatServer
from keyreel.safety.expansion import LocalModel
from keyreel.safety.moderation import CLASSIFIER
from keyreel.safety.plan import GuardPlan
from keyreel.settings import Settings

LOCAL = LocalModel("owner/llama", None, 60.0)
REMOTE = ChatServer("http://here/v1", "llama", "secret", None, 60.0)


def plan(video_device: str = "cpu", **settings: Any) -> GuardPlan:
    return GuardPlan.from_settings(Settings(**settings), LOCAL, video_device)


def test_pictures_are_checked_by_default_with_cuda_only() -> None:
    assert plan("cuda:0").pictures == CLASSIFIER
    assert plan("cpu").pictures is None
    assert plan("mps").pictures is None
    assert plan("cuda:0", image_checker="off").pictures is None
    assert plan("cpu", image_checker="nudenet").pictures == "nudenet"


def test_plan_contains_local_expanders_only() -> None:
    assert GuardPlan.from_settings(Settings(), LOCAL, "cpu").expander == LOCAL
    assert GuardPlan.from_settings(Settings(), REMOTE, "cpu").expander is None
    assert "secret" not in repr(GuardPlan.from_settings(Settings(expander_key="secret"), REMOTE, "cpu"))


def test_needed_for_omits_what_a_request_does_not_ask_for() -> None:
    whole = plan("cuda", text_checker="owner/toxic")
    assert whole.needed_for(Request(prompt="p", expand_prompt=True)) == whole
    assert whole.needed_for(Request(prompt="p")) == replace(whole, expander=None)
    assert not whole.needed_for(Request(prompt="p", enable_safety_checker=False)).checks
