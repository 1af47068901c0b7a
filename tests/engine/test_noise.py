import torch

from keyreel.engine import noise


def test_a_stream_depends_on_its_name_only() -> None:
    first = noise.draw(7, "latents", 0, (4, 5))
    torch.manual_seed(0)
    noise.draw(7, "other", 0, (100,))
    assert torch.equal(first, noise.draw(7, "latents", 0, (4, 5)))


def test_every_part_of_the_name_changes_the_stream() -> None:
    names = [(7, "latents", 0), (8, "latents", 0), (7, "decode", 0), (7, "latents", 1), (-7, "latents", 0)]
    streams = [tuple(noise.draw(*name, (8,)).tolist()) for name in names]
    assert len(set(streams)) == len(names)


def test_a_longer_draw_begins_with_the_shorter_one() -> None:
    assert torch.equal(noise.draw(1, "latents", 0, (32, 16))[:16], noise.draw(1, "latents", 0, (16, 16)))


def test_noise_is_standard_normal() -> None:
    drawn = noise.draw(3, "latents", 0, (100_000,))
    assert abs(drawn.mean().item()) < 0.02
    assert abs(drawn.std().item() - 1) < 0.02


def test_a_forked_seed_gives_other_streams() -> None:
    seeds = {7, noise.fork(7, "refine"), noise.fork(7, "other"), noise.fork(8, "refine")}
    assert len({tuple(noise.draw(seed, "latents", 0, (8,)).tolist()) for seed in seeds}) == 4
