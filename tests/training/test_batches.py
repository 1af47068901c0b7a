import torch
from training.autoencoder import BLOCK
from training.batches import SAMPLES, _focus_of_tokens


def test_focus_is_on_subjects_and_most_on_their_outlines() -> None:
    focus = torch.zeros(SAMPLES, BLOCK, 3 * BLOCK)
    focus[..., : BLOCK + 2] = 1
    assert _focus_of_tokens(focus).tolist() == [1, 2, 0]


def test_focus_is_on_outlines_that_only_some_frames_show() -> None:
    focus = torch.ones(SAMPLES, BLOCK, BLOCK)
    focus[1:] = 0
    assert _focus_of_tokens(focus).tolist() == [2]
