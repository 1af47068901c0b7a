"""Noise levels. sigma = 1 is pure noise, sigma = 0 the finished latents."""

THRESHOLD = 0.025


def linear_quadratic(steps: int) -> tuple[float, ...]:
    """The `steps` + 1 noise levels of LTX-Video 0.9.7, from 1 down to 0.

    The first half of the steps goes linearly from 1 to 0.975, the rest along a parabola that joins it without a kink
    (Movie Gen, arXiv 2410.13720, appendix; LTX-Video `schedulers/rf.py`).
    """
    if steps == 1:
        return (1.0, 0.0)
    linear = steps // 2
    quadratic = steps - linear
    slope = THRESHOLD / linear
    bend = (1 - THRESHOLD - slope * quadratic) / quadratic**2
    head = [1 - slope * i for i in range(linear)]
    tail = [1 - THRESHOLD - slope * i - bend * i**2 for i in range(quadratic)]
    return (*head, *tail, 0.0)
