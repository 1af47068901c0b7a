"""How the `extend` endpoints of fal place their clip."""

from typing import Any

import pytest

from keyreel.errors import RequestError
from keyreel.fal.conditions import longest_overlap
from keyreel.fal.endpoints import ENDPOINTS
from keyreel.fal.schema import VideoCondition

EXTEND = ENDPOINTS["fal-ai/ltx-video-13b-dev/extend"]
V095_EXTEND = ENDPOINTS["fal-ai/ltx-video-v095/extend"]


def extended(frames: int = 121, **clip: Any) -> VideoCondition:
    request = EXTEND.read({"prompt": "x", "num_frames": frames, "video": {"video_url": "a"} | clip})
    (condition,) = request.videos
    return condition


def test_a_clip_goes_on_from_its_last_frames() -> None:
    assert extended() == VideoCondition(video_url="a", from_end=True, max_num_frames=81)
    (condition,) = V095_EXTEND.read({"prompt": "x", "video": {"video_url": "a"}}).videos
    assert condition == extended()


def test_new_frames_lead_to_the_first_ones_of_a_clip_further_back() -> None:
    assert extended(start_frame_num=96) == VideoCondition(video_url="a", start_frame_number=96)
    assert extended(start_frame_num=24, limit_num_frames=True, max_num_frames=33).max_num_frames == 33


def test_fields_of_the_clip() -> None:
    condition = extended(strength=0.5, resample_fps=True, target_fps=12, reverse_video=True)
    assert (condition.strength, condition.target_fps, condition.reverse) == (0.5, 12, True)


@pytest.mark.parametrize(("wanted", "used"), [(25, 25), (113, 113), (114, 113), (1441, 113)])
def test_the_request_decides_how_many_frames_overlap(wanted: int, used: int) -> None:
    """But at least eight frames are new."""
    assert extended(limit_num_frames=True, max_num_frames=wanted).max_num_frames == used


@pytest.mark.parametrize(("frames", "overlap"), [(17, 9), (24, 9), (25, 17), (33, 17), (89, 57), (121, 81), (161, 105)])
def test_by_default_a_third_of_the_video_is_new(frames: int, overlap: int) -> None:
    assert longest_overlap(frames) == overlap
    assert overlap <= frames - 8


def test_a_video_too_short_to_go_on_is_refused() -> None:
    with pytest.raises(RequestError) as caught:
        extended(frames=16)
    (problem,) = caught.value.problems
    assert (problem.loc, problem.type, problem.context) == (("num_frames",), "greater_than_equal", {"ge": 17})
    assert "ask for 17 or more" in problem.message


@pytest.mark.parametrize(
    ("field", "translated"),
    [("start_frame_number", "start_frame_num"), ("video_url", "video_url"), ("reverse", "reverse_video")],
)
def test_errors_name_the_fields_of_the_clip(field: str, translated: str) -> None:
    wrong = RequestError.at(("videos", 0, field), "It is wrong.", "multiple_of")
    assert EXTEND.translate_error(wrong).problems[0].loc == ("video", translated)


def test_other_kinds_of_clips_are_refused_where_the_endpoint_has_them() -> None:
    video = {"video_url": "a", "conditioning_type": "pose"}
    with pytest.raises(RequestError) as caught:
        V095_EXTEND.read({"prompt": "x", "video": video})
    assert caught.value.problems[0].loc == ("video", "conditioning_type")
    assert EXTEND.read({"prompt": "x", "video": video}).videos
