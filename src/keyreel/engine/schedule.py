"""Noise levels and the guidance at each. sigma = 1 is pure noise, sigma = 0 the finished latents."""

from dataclasses import replace

from keyreel.video.recipes import DISTILLED_STEPS, Guidance, Pass

THRESHOLD = 0.025
"""How far sigma falls in the linear half of the schedule."""
TOLERANCE = 1e-6
"""Two noise levels closer than this are the same."""


def linear_quadratic(steps: int) -> tuple[float, ...]:
    """Returns the `steps` + 1 noise levels of LTX-Video 0.9.7, from 1 down to 0.

    The first half of the steps goes linearly from 1 to 0.975, the rest along a parabola with the same initial slope
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


def trained_levels(steps: int) -> tuple[float, ...]:
    """Returns `steps` of the noise levels for which distilled models are trained, from 1 down, evenly chosen.

    Lightricks' code refuses other levels (`allowed_inference_steps` in the files of its distilled models).
    """
    levels = linear_quadratic(DISTILLED_STEPS)
    return tuple(levels[index * DISTILLED_STEPS // steps] for index in range(steps))


def noise_levels(run: Pass) -> tuple[float, ...]:
    """Returns the noise levels of a pass, one more than it has steps. The last step always ends at 0."""
    levels = trained_levels(run.steps) if run.distilled else linear_quadratic(run.steps)[:-1]
    return (*levels[run.skip_initial : run.steps - run.skip_final], 0.0)


def guidance_per_step(run: Pass, depth: int, layers: int) -> tuple[Guidance, ...]:
    """Returns the guidance of each step of a pass, with its block numbers for a model of `layers` blocks.

    The recipe gives block numbers for a model of `depth` blocks. A shallower model uses the blocks at the same relative
    depth, a deeper one the same blocks.
    """
    chosen = (guidance_at(run, sigma) for sigma in noise_levels(run)[:-1])
    return tuple(replace(item, blocks=_blocks(item, depth, layers)) for item in chosen)


def guidance_at(run: Pass, sigma: float) -> Guidance:
    """Returns the first entry at or below `sigma`, else the last (LTX-Video's `guidance_timesteps`)."""
    below = (guidance for start, guidance in run.guidance if start <= sigma + TOLERANCE)
    return next(below, run.guidance[-1][1])


def _blocks(guidance: Guidance, depth: int, layers: int) -> tuple[int, ...]:
    if layers >= depth:
        return guidance.blocks
    return tuple(sorted({block * layers // depth for block in guidance.blocks}))
