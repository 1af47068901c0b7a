"""Your own clips to train a LoRA on: a folder of videos, each with its caption in a text file of the same name."""

from dataclasses import dataclass
from pathlib import Path
from random import Random

import av
import torch
from torch import Tensor
from torch.nn import functional

from keyreel.media.frames import rgb_pixels
from training.content import Content, DrawnClip, Shot

VIDEO_FILES = (".mp4", ".mov", ".webm", ".mkv")
SHORT_SIDE = 96  # cells, the resolution at which 720p is encoded
LONGEST = 161  # frames


@dataclass(frozen=True)
class Clip:
    """A clip and its caption. frames: (F, 3, rows, columns) in [0, 1], one value per cell."""

    frames: Tensor
    caption: str


def read_clips(folder: Path) -> list[Clip]:
    """Returns the folder's clips. Raises ValueError if there is none, or one without a caption."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_FILES)
    if not paths:
        raise ValueError(f"{folder} holds no videos ({', '.join(VIDEO_FILES)})")
    without = [path.name for path in paths if not path.with_suffix(".txt").exists()]
    if without:
        raise ValueError(f"no caption beside {', '.join(without)}: write it into a .txt file of the same name")
    return [Clip(_frames(path), path.with_suffix(".txt").read_text().strip()) for path in paths]


def _frames(path: Path) -> Tensor:
    small = []
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == LONGEST:
                break
            pixels = torch.from_numpy(rgb_pixels(frame)).movedim(-1, 0).float() / 255
            scale = SHORT_SIDE / min(pixels.shape[1:])
            size = [max(1, round(side * scale)) for side in pixels.shape[1:]]
            small.append(functional.interpolate(pixels[None], size, mode="bilinear", antialias=True)[0].half())
    return torch.stack(small)


def _fitted(frames: Tensor, rows: int, columns: int) -> Tensor:
    """Crops frames (T, 3, h, w) centrally to the shape of rows x columns and resizes them to that size."""
    height, width = frames.shape[2:]
    scale = min(height / rows, width / columns)
    cut_height, cut_width = int(rows * scale), int(columns * scale)
    top, left = (height - cut_height) // 2, (width - cut_width) // 2
    cut = frames[:, :, top : top + cut_height, left : left + cut_width].float()
    return functional.interpolate(cut, (rows, columns), mode="bilinear", antialias=True)


def of_clips(clips: list[Clip]) -> Content:
    """Returns content for `make_batch`. A clip that is too short stands still at its end."""

    def content(rng: Random, shot: Shot) -> DrawnClip:
        clip, grid = rng.choice(clips), shot.layout.grid
        chosen = clip.frames[shot.frames.round().long().clamp(max=len(clip.frames) - 1)]
        shown = _fitted(chosen, grid.rows, grid.columns).transpose(0, 1)
        return DrawnClip(shown, torch.zeros_like(shown[0]), clip.caption)

    return content
