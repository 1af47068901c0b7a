"""Random procedural scenes, each with the caption that describes it."""

import math
from dataclasses import replace
from random import Random

from training.scenes import COLOURS, MOTIONS, PLACES, RGB, SHAPES, SIZES, Backdrop, Grid, Scene, Subject

# Units per second. Slow enough for a subject to stay in a frame of 480 pixels height for 89 frames.
SPEEDS = {"right": (0.13, 0.0), "left": (-0.13, 0.0), "up": (0.0, -0.08), "down": (0.0, 0.08)}
GROWTH, TURN, LEAP = 0.2, 0.9, 0.2  # per second, except `LEAP`, which is a height in units


def _tint(rgb: RGB, rng: Random, amount: float = 0.04) -> RGB:
    red, green, blue = (min(1.0, max(0.0, c + rng.uniform(-amount, amount))) for c in rgb)
    return red, green, blue


def _horizon(rng: Random, grid: Grid) -> float:
    return rng.uniform(-0.25, 0.55) * grid.half[0]


def _plain(rng: Random, taken: set[str]) -> tuple[Backdrop, str, dict[str, str]]:
    name = rng.choice([c for c in COLOURS if c not in taken])
    colour = _tint(COLOURS[name], rng)
    pattern = rng.choice(("on a {} background", "on {}", "in front of a {} background", "{} background"))
    meaning = {"background": "plain", "ground colour": name}
    return Backdrop("plain", colour, colour, 0.0, 0), pattern.format(name), meaning


def _gradient(rng: Random, taken: set[str], grid: Grid) -> tuple[Backdrop, str, dict[str, str]]:
    first, second = rng.sample([c for c in COLOURS if c not in taken], 2)
    pattern = rng.choice(("on a {} to {} gradient", "on a gradient from {} to {}", "{} to {} gradient background"))
    horizon = rng.uniform(-0.3, 0.3) * grid.half[0]
    backdrop = Backdrop("gradient", _tint(COLOURS[first], rng), _tint(COLOURS[second], rng), horizon, 0)
    meaning = {"background": "gradient", "ground colour": first, "end colour": second}
    return backdrop, pattern.format(first, second), meaning


PLACE_COLOURS: dict[str, tuple[RGB, RGB]] = {
    "sea": ((0.35, 0.65, 0.95), (0.05, 0.27, 0.58)),
    "meadow": ((0.40, 0.70, 0.98), (0.30, 0.68, 0.22)),
    "desert": ((0.45, 0.72, 0.92), (0.93, 0.70, 0.36)),
    "night": ((0.03, 0.04, 0.16), (0.03, 0.04, 0.09)),
    "sunset": ((0.42, 0.16, 0.48), (0.22, 0.10, 0.32)),
    "snow": ((0.50, 0.72, 0.95), (0.93, 0.95, 0.99)),
    "city": ((0.25, 0.20, 0.50), (0.07, 0.07, 0.15)),
}


def random_place(rng: Random, grid: Grid, kind: str | None = None) -> Backdrop:
    """Returns a random place, of the given kind if there is one."""
    kind = kind or rng.choice(list(PLACES))
    top, bottom = PLACE_COLOURS[kind]
    return Backdrop(kind, _tint(top, rng), _tint(bottom, rng), _horizon(rng, grid), rng.randrange(2**30))


def _backdrop(rng: Random, taken: set[str], grid: Grid) -> tuple[Backdrop, str, dict[str, str]]:
    draw_of = rng.random()
    if draw_of < 0.55:
        return _plain(rng, taken)
    if draw_of < 0.67:
        return _gradient(rng, taken, grid)
    place = random_place(rng, grid)
    return place, rng.choice(PLACES[place.kind]), {"background": place.kind}


def _centre(
    rng: Random, velocity: tuple[float, float], room: tuple[float, float], seconds: float
) -> tuple[float, float]:
    """Returns the centre at time 0 of a subject that moves through the frame.

    room: half of the space that the centre has, x and y.
    """
    start = []
    for speed, half in zip(velocity, room, strict=True):
        slack = max(0.03, half - abs(speed) * seconds / 2)
        start.append(rng.uniform(-slack, slack) - speed * seconds / 2)
    return start[0], start[1]


def _subject(rng: Random, colour: RGB, motion: str, radius: float, grid: Grid, seconds: float) -> Subject:
    velocity = SPEEDS.get(motion, (0.0, 0.0))
    growth = {"grow": GROWTH, "shrink": -GROWTH}.get(motion, 0.0)
    room = max(0.0, grid.half[1] - 0.85 * radius), max(0.0, grid.half[0] - 0.85 * radius)
    x, y = _centre(rng, velocity, room, seconds)
    leap = LEAP if motion == "bounce" else 0.0
    return Subject(
        rng.choice(SHAPES),
        colour,
        (x, y + leap / 2),
        radius * math.exp(-growth * seconds / 2),
        velocity,
        growth,
        TURN if motion == "spin" else 0.0,
        leap,
    )


def _pair(first: Subject, second: Subject) -> tuple[Subject, Subject]:
    """Puts two subjects side by side, the first on the left. Both move alike."""
    radius = first.radius * 0.75
    apart = 1.3 * radius
    x, y = first.centre
    return (
        replace(first, radius=radius, centre=(x - apart, y)),
        replace(second, radius=radius, centre=(x + apart, y)),
    )


def _noun(colour: str, shape: str, size: str, rng: Random) -> str:
    noun = rng.choice(("ball", "circle", "disc")) if shape == "circle" else shape
    described = " ".join(filter(None, (size, colour, noun)))
    if rng.random() < 0.15:
        return described
    return ("an " if described.startswith("orange") else "a ") + described


def _phrase(parts: tuple[str, str, str], rng: Random) -> str:
    """Joins subject, motion and place in a random order."""
    subject, motion, place = parts
    order = rng.choices(("smp", "psm", "spm", "mps"), (5, 2, 2, 0.5))[0]
    named = {"s": subject, "m": motion, "p": place}
    return " ".join(filter(None, (named[part] for part in order)))


def random_scene(rng: Random, grid: Grid, seconds: float) -> Scene:
    """Returns a random scene whose subjects are in the frame for a clip of `seconds`."""
    names = rng.sample(list(COLOURS), 2)
    count = rng.choices((0, 1, 2), (0.06, 0.80, 0.14))[0]
    backdrop, place, meaning = _backdrop(rng, set(names[: max(count, 1)]), grid)
    if count == 0:
        return Scene(backdrop, (), place, meaning)
    motion = rng.choices(list(MOTIONS), (3, 3, 3, 3, 2, 1.5, 1.5, 1.5, 1))[0]
    size = rng.choices(list(SIZES), (6, 1, 1))[0]
    radius = SIZES[size][0] * rng.uniform(0.93, 1.07)
    made = [_subject(rng, _tint(COLOURS[name], rng), motion, radius, grid, seconds) for name in names]
    subjects = tuple(made[:1]) if count == 1 else _pair(*made)
    nouns = [
        _noun(name, one.shape, rng.choice(SIZES[size][1]), rng) for name, one in zip(names, subjects, strict=False)
    ]
    meaning |= {"colour": names[0], "shape": subjects[0].shape, "size": size, "motion": motion}
    if count == 2:
        meaning |= {"other colour": names[1], "other shape": subjects[1].shape}
    caption = _phrase((" and ".join(nouns), rng.choice(MOTIONS[motion]), place), rng)
    return Scene(backdrop, subjects, caption, meaning)
