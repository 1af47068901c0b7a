from random import Random

import pytest
import torch
from training.random_scenes import random_scene
from training.scenes import MOTIONS, PLACES, SLOTS, Grid, draw, draw_backdrop

GRID = Grid(480, 704, 8)
SECONDS = 3.5


@pytest.mark.parametrize("seed", range(30))
def test_the_caption_says_what_the_scene_means(seed: int) -> None:
    scene = random_scene(Random(seed), GRID, SECONDS)  # noqa: S311
    meaning = scene.meaning
    assert all(value in SLOTS[slot] for slot, value in meaning.items())
    for slot in ("colour", "other colour", "ground colour", "end colour"):
        assert meaning.get(slot, "") in scene.caption
    if "motion" in meaning:
        assert any(words in scene.caption for words in MOTIONS[meaning["motion"]])
    if meaning["background"] in PLACES:
        assert any(words in scene.caption for words in PLACES[meaning["background"]])


@pytest.mark.parametrize("seed", range(30))
def test_subjects_are_in_the_frame_from_start_to_end(seed: int) -> None:
    scene = random_scene(Random(seed), GRID, SECONDS)  # noqa: S311
    frames = draw(scene, GRID, torch.linspace(0, SECONDS, 5))
    seen = (frames - draw_backdrop(scene.backdrop, GRID)[:, None]).abs().amax(0) > 0.05
    assert seen.flatten(1).any(1).all() or not scene.subjects
