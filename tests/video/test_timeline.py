import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyreel.errors import RequestError
from keyreel.video.canvas import Grid, drawn_frames
from keyreel.video.timeline import Span, check_tokens, extra_latent_frames, place

GRID = Grid(32, 8)


def image(start: int, index: int = 0) -> Span:
    return Span(("images", index), start, 1, is_clip=False)


def clip(start: int, count: int, index: int = 0) -> Span:
    return Span(("videos", index), start, count, is_clip=True)


def placed(*spans: Span, frames: int = 89) -> list[Span]:
    return place(spans, frames, drawn_frames(frames, GRID), GRID)


def refused(*spans: Span, frames: int = 89) -> list[tuple[str, str]]:
    with pytest.raises(RequestError) as caught:
        placed(*spans, frames=frames)
    return [(".".join(map(str, problem.loc)), problem.type) for problem in caught.value.problems]


def test_images_may_start_at_any_frame() -> None:
    spans = [image(0), image(13), image(88)]
    assert placed(*spans) == spans


@pytest.mark.parametrize(
    ("start", "count", "kept"),
    [(0, 17, 17), (0, 20, 17), (0, 500, 89), (80, 9, 9), (80, 30, 9), (8, 16, 9), (16, 1000, 73)],
)
def test_clip_is_cut_to_the_frames_that_fit(start: int, count: int, kept: int) -> None:
    assert placed(clip(start, count)) == [clip(start, kept)]


def test_start_outside_the_video_is_refused() -> None:
    assert refused(image(89)) == [("images.0.start_frame_number", "less_than_equal")]


def test_start_in_drawn_frames_that_are_cut_off_is_refused() -> None:
    assert refused(image(34), frames=34) == [("images.0.start_frame_number", "less_than_equal")]


def test_clip_that_starts_inside_a_latent_frame_is_refused() -> None:
    assert refused(clip(11, 17)) == [("videos.0.start_frame_number", "multiple_of")]


def test_too_short_clip_is_refused() -> None:
    assert refused(clip(0, 8)) == [("videos.0.video_url", "video_duration_too_short")]


def test_clip_without_room_is_refused() -> None:
    assert refused(clip(88, 17)) == [("videos.0.start_frame_number", "video_duration_too_short")]


@pytest.mark.parametrize(
    ("spans", "field"),
    [
        ((image(5), image(5, 1)), "images.1.start_frame_number"),
        ((image(0), clip(0, 9)), "videos.0.start_frame_number"),
        ((clip(0, 17), clip(8, 17, 1)), "videos.1.start_frame_number"),
        ((image(20), clip(16, 9)), "videos.0.start_frame_number"),
    ],
)
def test_overlaps_are_refused(spans: tuple[Span, ...], field: str) -> None:
    assert refused(*spans) == [(field, "overlap")]


def test_adjacent_spans_do_not_overlap() -> None:
    placed(clip(0, 9), image(9), clip(16, 9, 1), image(25, 1))


def test_all_problems_are_reported_at_once() -> None:
    assert [loc for loc, _ in refused(image(100), clip(3, 5))] == [
        "images.0.start_frame_number",
        "videos.0.start_frame_number",
        "videos.0.video_url",
    ]


def test_conditions_count_towards_the_token_limit() -> None:
    spans = [image(0), image(5), clip(16, 17)]
    assert extra_latent_frames(spans) == 3
    check_tokens((12, 10, 10), spans, limit=1500)
    with pytest.raises(RequestError, match="1500 latent cells"):
        check_tokens((12, 10, 10), spans, limit=1499)


spans = st.one_of(
    st.builds(image, st.integers(0, 200), st.integers(0, 3)),
    st.builds(clip, st.integers(0, 25).map(lambda k: 8 * k), st.integers(1, 200), st.integers(0, 3)),
)


@given(frames=st.integers(9, 161), unplaced=st.lists(spans, max_size=4))
def test_placed_spans_are_disjoint_and_inside_the_drawn_frames(frames: int, unplaced: list[Span]) -> None:
    drawn = drawn_frames(frames, GRID)
    try:
        result = place(unplaced, frames, drawn, GRID)
    except RequestError:
        return
    covered = [frame for span in result for frame in range(span.start, span.end)]
    assert len(covered) == len(set(covered))
    assert all(span.start < frames and span.end <= drawn and span.count % 8 == 1 for span in result)
