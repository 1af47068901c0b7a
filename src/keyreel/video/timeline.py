"""Places conditions on the frames of a video and refuses those that do not fit.

The stock LTX pipeline silently accepts conditions that give a wrong video: a picture past the end, a clip that starts
between two latent frames, two conditions on the same frames. Here each is an error that names the field.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from keyreel.errors import Loc, Problem, RequestError
from keyreel.video.canvas import Grid


@dataclass(frozen=True, slots=True)
class Span:
    """The `count` frames of a condition from `start` on. A picture is a span of one frame."""

    loc: Loc
    start: int
    count: int
    is_clip: bool

    @property
    def end(self) -> int:
        """The frame after the last."""
        return self.start + self.count


def place(spans: Sequence[Span], frames: int, drawn: int, grid: Grid) -> list[Span]:
    """Checks the spans on a video of `frames` frames and returns them, with clips shortened to fit.

    drawn: the frames that the model draws, at least `frames`. A clip keeps the largest number 8k+1 of its frames that
    fits, where 8 is the temporal compression. Raises RequestError with every problem found.
    """
    placed = [_fit(span, drawn, grid) for span in spans]
    problems = [
        *(problem for span in spans for problem in _outside(span, frames)),
        *(problem for span, cut in zip(spans, placed, strict=True) for problem in _bad_clip(span, cut, grid)),
    ]
    if not problems:
        problems = list(_overlaps(placed))
    if problems:
        raise RequestError(*problems)
    return placed


def check_tokens(shape: tuple[int, int, int], spans: Sequence[Span], limit: int) -> None:
    """Raises RequestError if the video and its conditions have more latent cells than `limit`."""
    frames, height, width = shape
    tokens = height * width * (frames + extra_latent_frames(spans))
    if tokens > limit:
        raise RequestError.at(
            (),
            f"The video and its conditions need {tokens} latent cells, more than the {limit} allowed here. "
            "Use fewer frames, a lower resolution or fewer conditions.",
            "too_many_tokens",
            tokens=tokens,
            max_tokens=limit,
        )


def extra_latent_frames(spans: Sequence[Span]) -> int:
    """Returns the latent frames that conditions add to the sequence: 1 per picture, 2 per clip, none at frame 0."""
    return sum((2 if span.is_clip else 1) for span in spans if span.start > 0)


def _fit(span: Span, drawn: int, grid: Grid) -> Span:
    if not span.is_clip:
        return span
    available = max(0, min(span.count, drawn - span.start))
    count = (available - 1) // grid.temporal * grid.temporal + 1 if available else 0
    return Span(span.loc, span.start, count, is_clip=True)


def _outside(span: Span, frames: int) -> Iterator[Problem]:
    if span.start >= frames:
        yield Problem(
            (*span.loc, "start_frame_number"),
            f"Frame {span.start} lies outside the video, whose frames are 0 to {frames - 1}.",
            "less_than_equal",
            {"le": frames - 1},
        )


def _bad_clip(span: Span, cut: Span, grid: Grid) -> Iterator[Problem]:
    if not span.is_clip:
        return
    step, shortest = grid.temporal, grid.temporal + 1
    if span.start % step:
        below = span.start // step * step
        yield Problem(
            (*span.loc, "start_frame_number"),
            f"A clip must start at a multiple of {step}; the nearest frames are {below} and {below + step}.",
            "multiple_of",
            {"multiple_of": step},
        )
    if span.count < shortest:
        yield Problem(
            (*span.loc, "video_url"),
            f"The clip has {span.count} frames; at least {shortest} are needed. "
            "Send a longer clip, or pin one frame as an image.",
            "video_duration_too_short",
            {"min_frames": shortest, "provided_frames": span.count},
        )
    elif cut.count < shortest and not span.start % step:
        yield Problem(
            (*span.loc, "start_frame_number"),
            f"Only {cut.count} frames of the clip fit from frame {span.start} on; at least {shortest} are needed. "
            "Start the clip earlier.",
            "video_duration_too_short",
            {"min_frames": shortest, "provided_frames": cut.count},
        )


def _overlaps(spans: Sequence[Span]) -> Iterator[Problem]:
    for first, second in combinations(spans, 2):
        start, end = max(first.start, second.start), min(first.end, second.end)
        if start < end:
            other = ".".join(map(str, first.loc))
            shared = f"frame {start}" if end - start == 1 else f"frames {start} to {end - 1}"
            yield Problem(
                (*second.loc, "start_frame_number"),
                f"This and {other} are both pinned to {shared}; one would overwrite the other. Move or shorten one.",
                "overlap",
                {"other": other, "first_frame": start, "last_frame": end - 1},
            )
