from random import Random

import pytest
import torch
from training.random_scenes import random_scene
from training.scenes import UNIT, Anchor, Grid, anchored, draw, draw_backdrop, whereabouts

GRID = Grid(768, 1280, 8)
SECONDS = 3.5


@pytest.mark.parametrize("seed", range(20))
def test_an_anchored_subject_is_at_its_anchor_at_the_time_of_the_anchor(seed: int) -> None:
    scene = random_scene(Random(seed), GRID, SECONDS)  # noqa: S311
    moved = anchored(scene, Anchor(0.25, -0.125, 1.3), SECONDS)
    picture = draw(moved, GRID, torch.tensor([1.3]))[:, 0]
    seen = (picture - draw_backdrop(moved.backdrop, GRID)).abs().amax(0) > 0.05
    assert moved.caption == scene.caption
    assert bool(seen.any()) == bool(scene.subjects)
    if not scene.subjects:
        return
    y, x = GRID.axes()
    xs, ys = x.expand_as(seen)[seen], y.expand_as(seen)[seen]
    # The tolerance is generous: shapes are not quite centred, and a bouncing one is at its lowest point.
    assert abs((xs.min() + xs.max()) / 2 - 0.25) < 60 / UNIT
    assert abs((ys.min() + ys.max()) / 2 + 0.125) < 130 / UNIT


def test_backdrops_are_laid_out_around_the_anchor() -> None:
    scene = next(
        scene
        for scene in (random_scene(Random(seed), GRID, SECONDS) for seed in range(99))  # noqa: S311
        if scene.backdrop.kind == "night"
    )
    anchors = Anchor(0.0, 0.0, 0.0), Anchor(0.25, 0.125, 0.0)
    near, far = (draw_backdrop(anchored(scene, anchor, SECONDS).backdrop, GRID) for anchor in anchors)
    # The same hills, 128 pixels to the right and 64 pixels down.
    torch.testing.assert_close(near[:, :-8, :-16], far[:, 8:, 16:])


@pytest.mark.parametrize("seed", range(8))
def test_whereabouts_follow_the_subject(seed: int) -> None:
    """At all times the drawn shape surrounds the point with coordinates 0."""
    scenes = (random_scene(Random(f"{seed} {again}"), GRID, SECONDS) for again in range(99))  # noqa: S311
    scene = anchored(next(scene for scene in scenes if len(scene.subjects) == 1), Anchor(0.1, -0.1, 1.3), SECONDS)
    times = torch.tensor([0.4, 1.3, 2.2])
    seen = (draw(scene, GRID, times) - draw_backdrop(scene.backdrop, GRID)[:, None]).abs().amax(0) > 0.05
    values = whereabouts(scene, GRID, times).transpose(0, 1)
    places, moved, grown, turned, speed, ago = torch.split(values, [2, 2, 1, 1, 2, 1], 1)
    for place, shape in zip(places, seen, strict=True):
        assert place.norm(dim=0)[shape].max() < 1.3
        assert place[:, shape].mean(1).abs().max() < 0.45
    subject = scene.subjects[0]
    assert not torch.cat([moved, grown, turned], 1)[1].any()
    torch.testing.assert_close(ago[:, 0, 0, 0], times - 1.3)
    torch.testing.assert_close(moved, speed * ago)
    torch.testing.assert_close(grown, subject.growth * ago)
    torch.testing.assert_close(turned, subject.turn * ago)
    assert speed.any() == any(subject.velocity)
