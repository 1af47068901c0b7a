from random import Random

import pytest
import torch
from training.content import FADE_FRAMES, Layout, Pins, Shot, everything, one_subject, restyled, with_shape
from training.scenes import Anchor

LAYOUT = Layout(1, 4, 4, 89, 3)
FRAMES = torch.tensor([0.0] * 4 + [33.5, 35.5, 37.5, 39.5] + [81.5, 83.5, 85.5, 87.5])


def test_the_first_lesson_is_one_shape_in_front_of_one_colour() -> None:
    shown = one_subject(Random(2), Shot(LAYOUT, Pins(), FRAMES, Anchor(0.0, 0.0, 1.0)))  # noqa: S311
    assert shown.clip.shape[1] == len(FRAMES)
    assert shown.focus.any()
    assert shown.places is not None
    assert shown.places.shape[:2] == (9, LAYOUT.kept)
    ground = shown.clip[:, shown.focus == 0]
    assert (ground.amax(1) - ground.amin(1)).max() < 0.1


@pytest.mark.parametrize("seed", range(6))
def test_another_look_leaves_pinned_frames_as_they_are(seed: int) -> None:
    shot = Shot(LAYOUT, Pins(head=1), FRAMES, None)
    plain = everything(Random(seed), shot)  # noqa: S311
    styled = restyled(lambda clip: 1 - clip)(Random(seed), shot)  # noqa: S311
    away = FRAMES > FADE_FRAMES
    torch.testing.assert_close(styled.clip[:, :4], plain.clip[:, :4])
    torch.testing.assert_close(styled.clip[:, away], 1 - plain.clip[:, away])


def test_a_shape_can_replace_the_one_that_the_caption_names() -> None:
    shot = Shot(LAYOUT, Pins(), FRAMES, Anchor(0.0, 0.0, 1.0))
    hearts = [with_shape("heart")(Random(seed), shot) for seed in range(4)]  # noqa: S311
    stars = [with_shape("star")(Random(seed), shot) for seed in range(4)]  # noqa: S311
    assert [heart.caption for heart in hearts] == [star.caption for star in stars]
    assert any(not torch.equal(heart.clip, star.clip) for heart, star in zip(hearts, stars, strict=True))
