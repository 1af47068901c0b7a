"""Procedural scenes: a backdrop, up to two moving shapes, and a caption that describes them.

A scene is a formula, so it can be sampled on any grid: at pixels for the decoder, or at the 8-pixel cells that the
encoder sees. The latter makes new training clips almost free.

The transformer knows positions only relative to each other (rotary embeddings) and nothing of the frame's edges, so
with a prompt alone, only the noise can tell it where to put a subject. Therefore sizes are fixed in pixels and speeds
in pixels per second, whatever the frame. A subject, a horizon or the middle of a gradient is at a random place, or at
an anchor that the noise chooses.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import torch
from torch import Tensor

RGB = tuple[float, float, float]
UNIT = 512.0  # pixels

COLOURS: dict[str, RGB] = {
    "red": (0.88, 0.11, 0.13),
    "orange": (0.98, 0.52, 0.08),
    "yellow": (0.99, 0.87, 0.15),
    "green": (0.13, 0.65, 0.22),
    "cyan": (0.12, 0.80, 0.85),
    "blue": (0.12, 0.27, 0.85),
    "purple": (0.50, 0.15, 0.70),
    "pink": (0.98, 0.50, 0.72),
    "white": (0.97, 0.97, 0.97),
    "grey": (0.50, 0.50, 0.50),
    "black": (0.04, 0.04, 0.05),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "diamond", "cross", "moon")
MOTIONS: dict[str, tuple[str, ...]] = {
    "right": ("moving right", "moving from left to right", "moving to the right", "flying right"),
    "left": ("moving left", "moving from right to left", "moving to the left", "flying left"),
    "up": ("moving up", "rising", "going up"),
    "down": ("moving down", "falling", "sinking", "going down"),
    "still": ("", "standing still", "that does not move"),
    "grow": ("growing", "getting bigger"),
    "shrink": ("shrinking", "getting smaller"),
    "spin": ("spinning", "rotating", "turning"),
    "bounce": ("bouncing", "jumping up and down"),
}
PLACES: dict[str, tuple[str, ...]] = {
    "sea": ("over the sea", "over the ocean", "above blue water"),
    "meadow": ("over a green meadow", "over a field of grass", "above green hills"),
    "desert": ("in the desert", "over sand dunes"),
    "night": ("at night", "in the night sky", "over dark mountains at night"),
    "sunset": ("at sunset", "at sunrise over the sea", "in the evening sky"),
    "snow": ("in the snow", "over snowy mountains", "in winter"),
    "city": ("in the city", "over a city at night"),
}
SIZES: dict[str, tuple[float, tuple[str, ...]]] = {
    "usual": (0.24, ("",)),
    "small": (0.15, ("small",)),
    "big": (0.34, ("big",)),
}
LEAPS = 0.85  # per second
RADII = (0.07, 0.7)  # the smallest and the largest radius, in units
WHEREABOUTS = 9  # number of values that `whereabouts` returns for each place
HORIZON_BELOW = 0.125  # distance from an anchor down to the horizon, in units
GRADIENT, SKY = 0.7, 0.65  # height of the zone in which colours change, in units
SLOTS: dict[str, tuple[str, ...]] = {
    "colour": ("", *COLOURS),
    "shape": ("", *SHAPES),
    "other colour": ("", *COLOURS),
    "other shape": ("", *SHAPES),
    "size": ("", *SIZES),
    "motion": ("", *MOTIONS),
    "background": ("", "plain", "gradient", *PLACES),
    "ground colour": ("", *COLOURS),
    "end colour": ("", *COLOURS),
}


@dataclass(frozen=True)
class Grid:
    """The points at which a scene is sampled.

    height, width, cell: pixels; one sample per block of cell x cell pixels.
    crop: top, left, height and width of the part to draw, in pixels. None: the whole frame.
    """

    height: int
    width: int
    cell: int
    crop: tuple[int, int, int, int] | None = None

    @property
    def rows(self) -> int:
        return (self.crop[2] if self.crop else self.height) // self.cell

    @property
    def columns(self) -> int:
        return (self.crop[3] if self.crop else self.width) // self.cell

    @property
    def half(self) -> tuple[float, float]:
        """Half the height and half the width, in units."""
        return self.height / 2 / UNIT, self.width / 2 / UNIT

    def axes(self) -> tuple[Tensor, Tensor]:
        """Returns y (rows, 1) and x (1, columns) from the centre, in units."""
        top, left = self.crop[:2] if self.crop else (0, 0)
        y = (torch.arange(self.rows) + 0.5) * self.cell + top - self.height / 2
        x = (torch.arange(self.columns) + 0.5) * self.cell + left - self.width / 2
        return (y / UNIT)[:, None], (x / UNIT)[None, :]


@dataclass(frozen=True)
class Backdrop:
    """The picture behind the subjects.

    kind: "plain", "gradient" or a place. horizon: its y, or that of a gradient's middle. seed: seed of the hills and
    houses, which are drawn relative to x = origin.
    """

    kind: str
    top: RGB
    bottom: RGB
    horizon: float
    seed: int
    origin: float = 0.0


@dataclass(frozen=True)
class Subject:
    """A shape whose centre (x, y) and angle change at constant speeds, in units and radians per second.

    growth: the radius grows by a factor of e in 1 / growth seconds. bounce: the height of its leaps, in units.
    """

    shape: str
    colour: RGB
    centre: tuple[float, float]
    radius: float
    velocity: tuple[float, float] = (0.0, 0.0)
    growth: float = 0.0
    turn: float = 0.0
    bounce: float = 0.0


@dataclass(frozen=True)
class Scene:
    """A backdrop, subjects and their caption.

    meaning: what the caption says, by slot; see `SLOTS`. began: the time at which motion starts, in seconds.
    """

    backdrop: Backdrop
    subjects: tuple[Subject, ...]
    caption: str
    meaning: dict[str, str]
    began: float = 0.0


# --- drawing -----------------------------------------------------------------------------------------------


def _colour(rgb: RGB) -> Tensor:
    return torch.tensor(rgb).view(3, 1, 1)


def _mix(below: Tensor, above: Tensor, cover: Tensor) -> Tensor:
    return below + (above - below) * cover


def _ridge(x: Tensor, rng: Random, height: float, rough: float) -> Tensor:
    """Returns the profile of hills (rough 0) or mountains (rough 1) over x."""
    total = torch.zeros_like(x)
    for octave in range(3):
        phase = x * (1.3 + 0.5 * rng.random()) * 2**octave + rng.random() * 9
        wave = rough * (2 * (phase % 2 - 1).abs() - 1) + (1 - rough) * torch.sin(phase * math.pi)
        total = total + wave * 0.5**octave
    return height * total / 1.75


def _skyline(x: Tensor, rng: Random) -> Tensor:
    heights = torch.tensor([rng.uniform(0.02, 0.30) for _ in range(64)])
    return heights[((x + 4) * rng.uniform(6, 9)).long() % 64]


def _ground(backdrop: Backdrop, x: Tensor, rng: Random) -> list[tuple[Tensor, RGB]]:
    """Returns silhouettes from back to front: the height of each above the horizon, and its colour."""
    flat = torch.zeros_like(x)
    layers: dict[str, list[tuple[Tensor, RGB]]] = {
        "sea": [(flat, backdrop.bottom)],
        "meadow": [
            (_ridge(x, rng, 0.05, 0.0) + 0.06, (0.20, 0.50, 0.25)),
            (_ridge(x, rng, 0.03, 0.0) - 0.06, backdrop.bottom),
        ],
        "desert": [
            (_ridge(x, rng, 0.06, 0.1) + 0.05, (0.80, 0.52, 0.25)),
            (_ridge(x, rng, 0.04, 0.0) - 0.07, backdrop.bottom),
        ],
        "night": [
            (_ridge(x, rng, 0.10, 1.0) + 0.10, (0.10, 0.11, 0.24)),
            (_ridge(x, rng, 0.05, 0.3) - 0.06, backdrop.bottom),
        ],
        "sunset": [(flat, backdrop.bottom)],
        "snow": [
            (_ridge(x, rng, 0.14, 1.0) + 0.14, (0.62, 0.72, 0.85)),
            (_ridge(x, rng, 0.05, 0.0) - 0.05, backdrop.bottom),
        ],
        "city": [
            (_skyline(x, rng) + 0.06, (0.16, 0.15, 0.30)),
            (_skyline(x, rng) - 0.08, backdrop.bottom),
        ],
    }
    return layers[backdrop.kind]


def draw_backdrop(backdrop: Backdrop, grid: Grid) -> Tensor:
    """Returns the picture behind the subjects, (3, rows, columns) in [0, 1]."""
    y, x = grid.axes()
    below = (y - backdrop.horizon).expand(grid.rows, grid.columns)
    if backdrop.kind in ("plain", "gradient"):
        return _mix(_colour(backdrop.top), _colour(backdrop.bottom), (below / GRADIENT + 0.5).clamp(0, 1))
    rng = Random(backdrop.seed)
    pale = tuple(0.45 + 0.55 * c for c in backdrop.top) if backdrop.kind != "night" else (0.16, 0.18, 0.38)
    low = (1.0, 0.72, 0.35) if backdrop.kind == "sunset" else pale
    picture = _mix(_colour(backdrop.top), torch.tensor(low).view(3, 1, 1), (below / SKY + 1).clamp(0, 1))
    for height, colour in _ground(backdrop, x - backdrop.origin, rng):
        line = backdrop.horizon - height
        cover = ((y - line) * UNIT / grid.cell + 0.5).clamp(0, 1)
        shade = (1.08 - 0.45 * (y - line).clamp(0, 0.7)).clamp(max=1.0)
        picture = _mix(picture, _colour(colour) * shade, cover)
    return picture


def _polygon(x: Tensor, y: Tensor, radius: float, sides: int) -> Tensor:
    sector = 2 * math.pi / sides
    angle = torch.atan2(x, -y)
    folded = angle - sector * torch.round(angle / sector)
    return torch.hypot(x, y) * torch.cos(folded) - radius * math.cos(sector / 2)


def _star(x: Tensor, y: Tensor, radius: float) -> Tensor:
    """Returns the distance to a five-pointed star: one edge line, mirrored into ten wedges."""
    wedge = math.pi / 5
    angle = torch.atan2(x, -y)
    folded = (angle - 2 * wedge * torch.round(angle / (2 * wedge))).abs()
    length = torch.hypot(x, y)
    along, across = length * torch.cos(folded), length * torch.sin(folded)
    inner = 0.45 * radius
    edge = (inner * math.cos(wedge) - radius, inner * math.sin(wedge))
    norm = math.hypot(*edge)
    return (along - radius) * (edge[1] / norm) - across * (edge[0] / norm)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    """Returns the distance to two discs over a rotated square. Only LoRAs draw this shape."""
    side, drop = x.abs(), y + 0.25
    lobes = torch.hypot(side - 0.48, drop + 0.12) - 0.52
    point = torch.maximum((side + drop - 0.72) / 2**0.5, -drop - 0.12)
    return torch.minimum(lobes, point)


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": lambda x, y: torch.hypot(x, y) - 0.95,
    "square": lambda x, y: torch.maximum(x.abs(), y.abs()) - 0.82,
    "triangle": lambda x, y: _polygon(x, 0.2 - y, 1.15, 3),
    "star": lambda x, y: _star(x, y, 1.15),
    "ring": lambda x, y: (torch.hypot(x, y) - 0.72).abs() - 0.25,
    "diamond": lambda x, y: (x.abs() * 1.25 + y.abs() - 1.1) / 1.6,
    "cross": lambda x, y: torch.minimum(
        torch.maximum(x.abs() - 1.0, y.abs() - 0.33), torch.maximum(x.abs() - 0.33, y.abs() - 1.0)
    ),
    "heart": _heart,
    "moon": lambda x, y: torch.maximum(torch.hypot(x, y) - 0.98, 0.80 - torch.hypot(x - 0.5, y + 0.1)),
}


def _path(subject: Subject, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the centre's x and y and the radius at times t, in seconds since the motion began."""
    leap = subject.bounce * torch.sin(math.pi * LEAPS * t).abs()
    x, y = (centre + speed * t for centre, speed in zip(subject.centre, subject.velocity, strict=True))
    return x, y - leap, (subject.radius * torch.exp(subject.growth * t)).clamp(*RADII)


def _cover(subject: Subject, grid: Grid, times: Tensor) -> Tensor:
    """Returns how much of each cell the subject covers, (T, rows, columns). times: (T,) in seconds."""
    y, x = grid.axes()
    t = times.view(-1, 1, 1)
    middle_x, middle_y, radius = _path(subject, t)
    dx, dy = x - middle_x, y - middle_y
    cos, sin = torch.cos(subject.turn * t) / radius, torch.sin(subject.turn * t) / radius
    distance = DISTANCES[subject.shape](dx * cos + dy * sin, dy * cos - dx * sin) * radius
    return (0.5 - distance * UNIT / grid.cell).clamp(0, 1)


def whereabouts(scene: Scene, grid: Grid, times: Tensor) -> Tensor:
    """Returns where each cell is relative to the subjects, and how they move, (9, T, rows, columns).

    The values are: the cell's distance from the middle of the subjects, x and y, in their radii; how far the middle has
    moved since the motion began, x and y, without leaps; how much it has grown (a logarithm) and turned; its speed, x
    and y, in radii per second; and the seconds since the motion began.
    """
    y, x = grid.axes()
    ago, first = (times - scene.began).view(-1, 1, 1), scene.subjects[0]
    paths = zip(*(_path(one, ago) for one in scene.subjects), strict=True)
    middle_x, middle_y, radius = (torch.stack(values).mean(0) for values in paths)
    speed_x, speed_y = (speed / radius for speed in first.velocity)
    place = (x - middle_x) / radius, (y - middle_y) / radius
    values = (
        *place,
        speed_x * ago,
        speed_y * ago,
        (radius / first.radius).log(),
        first.turn * ago,
        speed_x,
        speed_y,
        ago,
    )
    return torch.stack([value.expand(len(times), grid.rows, grid.columns) for value in values])


def draw(scene: Scene, grid: Grid, times: Tensor) -> Tensor:
    """Returns the scene's frames, (3, T, rows, columns) in [0, 1]. times: (T,) in seconds."""
    picture = draw_backdrop(scene.backdrop, grid)[:, None].expand(-1, len(times), -1, -1)
    for subject in scene.subjects:
        cover = _cover(subject, grid, times - scene.began)
        picture = _mix(picture, torch.tensor(subject.colour).view(3, 1, 1, 1), cover[None])
    return picture


# --- moving to an anchor -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Anchor:
    """A point of the frame, in units from its centre, and a moment, in seconds."""

    x: float
    y: float
    time: float


def anchored(scene: Scene, anchor: Anchor, seconds: float) -> Scene:
    """Returns the scene with its subjects at the anchor, upright and of their usual size at that moment.

    The backdrop is placed around the anchor too. seconds: the clip length that the scene was made for.
    """
    count = max(1, len(scene.subjects))
    x, y = (sum(subject.centre[axis] for subject in scene.subjects) / count for axis in (0, 1))
    subjects = tuple(
        replace(
            subject,
            centre=(subject.centre[0] - x + anchor.x, subject.centre[1] - y + anchor.y + subject.bounce / 2),
            radius=subject.radius * math.exp(subject.growth * seconds / 2),
        )
        for subject in scene.subjects
    )
    below = 0.0 if scene.backdrop.kind == "gradient" else HORIZON_BELOW
    backdrop = replace(scene.backdrop, horizon=anchor.y + below, origin=anchor.x, seed=0)
    return replace(scene, backdrop=backdrop, subjects=subjects, began=anchor.time)
