import pytest
import torch
from training.judge import Seen, edge_steps, look, nearest_shape, signal_to_noise, template
from training.scenes import COLOURS, SHAPES, Backdrop, Grid, Scene, Subject, draw

GRID = Grid(256, 320, 1)
TIMES = torch.linspace(0, 1.6, 9)


def clip(shape: str, velocity: tuple[float, float], begin: tuple[float, float] | None = None) -> torch.Tensor:
    """Draws a yellow subject. begin: its first place; by default it passes the middle of the frame half-way."""
    backdrop = Backdrop("plain", COLOURS["blue"], COLOURS["blue"], 0.0, 0)
    centre = begin or (-0.8 * velocity[0], -0.8 * velocity[1])
    subject = Subject(shape, COLOURS["yellow"], centre, 0.13, velocity)
    return draw(Scene(backdrop, (subject,), "", {}), GRID, TIMES).transpose(0, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_drawn_shape_is_recognised(shape: str) -> None:
    assert look(clip(shape, (0.0, 0.0))) == Seen("blue", "yellow", shape, "still")


@pytest.mark.parametrize("shape", SHAPES)
def test_lines_and_specks_of_the_same_colour_are_ignored(shape: str) -> None:
    video = clip(shape, (0.0, 0.0))
    yellow = torch.tensor(COLOURS["yellow"]).view(3, 1, 1)
    video[:, :, 126:131, :] = yellow
    video[:, :, :, 40:44] = yellow
    video[:, :, 20:32, 20:32] = yellow
    assert look(video).shape == shape


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_judged_in_frames_where_it_is_whole(shape: str) -> None:
    video = clip(shape, (0.2, 0.0), begin=(0.08, 0.0))  # half-way its centre is a quarter of a radius from the edge
    assert look(video).shape == shape


def test_a_shape_that_is_always_cut_is_judged_as_it_is() -> None:
    assert look(clip("square", (0.0, 0.0), begin=(0.0, 0.22))) == Seen("blue", "yellow", "square", "still")


@pytest.mark.parametrize(
    ("velocity", "direction"),
    [((0.1, 0.0), "right"), ((-0.1, 0.0), "left"), ((0.0, -0.06), "up"), ((0.0, 0.06), "down")],
)
def test_directions_are_recognised(velocity: tuple[float, float], direction: str) -> None:
    assert look(clip("star", velocity)).direction == direction


def test_an_empty_scene_has_no_subject() -> None:
    assert look(torch.full((5, 3, 64, 64), 0.97)) == Seen("white", None, None, None)


def test_each_template_is_nearest_to_its_own_shape() -> None:
    assert [nearest_shape(template(shape)) for shape in SHAPES] == list(SHAPES)


def test_signal_to_noise_of_a_known_error() -> None:
    assert signal_to_noise(torch.full((3, 4, 4), 0.6), torch.full((3, 4, 4), 0.5)) == pytest.approx(20.0, abs=1e-4)


def test_steps_at_the_edges_of_tokens_are_told_from_others() -> None:
    video = (
        torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(0)) / 255
    )  # steps of a third of a grey level
    video[:, :, 10:, :] += 6 / 255  # a token begins six pixels above the frame and eight to its left
    video[:, :, :, 24:] += 4 / 255
    at, elsewhere = edge_steps(video, 16, corner=(6, 8))
    # Two of three edges between rows, at 10, 26 and 42, and one of two between columns, at 8 and 24.
    assert at == pytest.approx((6 / 3 + 2 / 3 * 0.33 + 4 / 2 + 0.33 / 2) / 2, abs=0.15)
    assert elsewhere == pytest.approx(1 / 3, abs=0.03)
