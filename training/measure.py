"""Samples of a written model, judged by simple measurements and shown as a sheet of frames."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import LTXConditionPipeline
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image
from torch import Tensor
from torch.nn import functional

from training.scenes import COLOURS, DISTANCES, MOTIONS, SHAPES
from training.text import NEGATIVE_PROMPT

PROMPTS = (
    "a red circle moving from left to right on a blue background",
    "a yellow star rising at night",
    "a big white moon over the sea",
    "a green square falling on a pink background",
    "an orange ball bouncing over a green meadow",
    "a purple triangle spinning on a white background",
    "a pink diamond moving left in the desert",
    "a red ball and a blue square on a yellow background",
    "a white cross growing on a red to black gradient",
    "a yellow ring moving right over a city at night",
)


def load_pipeline(folder: Path) -> LTXConditionPipeline:
    pipe = LTXConditionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.no_grad()
def generate(
    pipe: LTXConditionPipeline,
    prompt: str,
    size: tuple[int, int, int] = (512, 832, 89),
    pins: dict[int, Image.Image] | None = None,
    seed: int = 0,
    guidance: float = 3.0,
) -> Tensor:
    """size: height, width, frames. Returns (frames, 3, height, width) in [0, 1]."""
    height, width, frames = size
    conditions = [
        LTXVideoCondition(image=image.resize((width, height)), frame_index=frame)
        for frame, image in (pins or {}).items()
    ]
    result = pipe(
        prompt=prompt,
        negative_prompt=NEGATIVE_PROMPT,
        conditions=conditions or None,
        height=height,
        width=width,
        num_frames=frames,
        num_inference_steps=30,
        guidance_scale=guidance,
        decode_timestep=0.05,
        decode_noise_scale=0.025,
        image_cond_noise_scale=0.15,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    )
    return torch.as_tensor(result.frames[0])


def to_image(frame: Tensor) -> Image.Image:
    """frame: (3, H, W) in [0, 1]."""
    return Image.fromarray((frame.clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy())


def sheet(videos: list[Tensor], columns: int = 6, width: int = 208) -> Image.Image:
    """One row per video, frames evenly spread from first to last."""
    rows = []
    for video in videos:
        picks = torch.linspace(0, len(video) - 1, columns).round().long()
        height = round(width * video.shape[2] / video.shape[3])
        tiles = [np.asarray(to_image(video[i]).resize((width, height))) for i in picks]
        rows.append(np.concatenate(tiles, 1))
    return Image.fromarray(np.concatenate(rows, 0))


def signal_to_noise(made: Tensor, real: Tensor) -> float:
    """Peak signal to noise ratio in dB of pictures in [0, 1]."""
    return float(-10 * torch.log10((made - real).square().mean()))


def nearest_colour(pixels: Tensor) -> str:
    """Name of the palette colour nearest to the median. pixels: (3, N)."""
    median = pixels.median(1).values
    return min(COLOURS, key=lambda name: float((median - torch.tensor(COLOURS[name])).square().sum()))


def nearest_shape(mask: Tensor) -> str:
    """Name of the shape that overlaps a mask (H, W) best when both fill their boxes."""
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()
    fitted = functional.interpolate(box[None, None], (48, 48))[0, 0] > 0.5
    return max(SHAPES, key=lambda name: _overlap(fitted, _outline(name)))


def _overlap(one: Tensor, other: Tensor) -> float:
    return float((one & other).sum() / (one | other).sum().clamp(min=1))


def _outline(shape: str) -> Tensor:
    axis = torch.linspace(-1.3, 1.3, 160)
    inside = DISTANCES[shape](axis[None, :], axis[:, None]) < 0
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    box = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].float()
    return functional.interpolate(box[None, None], (48, 48))[0, 0] > 0.5


@dataclass(frozen=True)
class Seen:
    """What a simple look at a video finds; None where no subject stands out."""

    background: str
    colour: str | None
    shape: str | None
    direction: str | None


def look(video: Tensor) -> Seen:
    """video: (F, 3, H, W) in [0, 1], one subject before a plain background."""
    edge = torch.cat([video[..., :12, :].flatten(2), video[..., -12:, :].flatten(2)], 2)
    ground = edge.transpose(0, 1).flatten(1)
    apart = (video - ground.median(1).values.view(1, 3, 1, 1)).square().sum(1).sqrt() > 0.35
    if apart.flatten(1).float().mean(1).min() < 0.005:
        return Seen(nearest_colour(ground), None, None, None)
    middle = len(video) // 2
    colour = nearest_colour(video[middle][:, apart[middle]])
    first, last = (_centre(apart[i]) for i in (1, len(video) - 1))
    shift = last - first
    across = bool(shift[1].abs() > shift[0].abs())
    names = ("left", "right") if across else ("up", "down")
    direction = names[int(shift[int(across)] > 0)] if shift.abs().max() > 20 else "still"
    return Seen(nearest_colour(ground), colour, nearest_shape(apart[middle]), direction)


def _centre(mask: Tensor) -> Tensor:
    """Row and column of the middle of a mask (H, W)."""
    return mask.nonzero().float().mean(0)


def rates(pipe: LTXConditionPipeline, count: int, seed: int) -> dict[str, float]:
    """Shares of prompts whose background, colour, shape and direction come out as asked."""
    rng, hits = Random(seed), {"background": 0, "colour": 0, "shape": 0, "direction": 0}
    names = [name for name in COLOURS if name != "grey"]
    for number in range(count):
        colour, ground = rng.sample(names, 2)
        shape, direction = rng.choice(SHAPES), rng.choice(("left", "right", "up", "down", "still"))
        prompt = f"a {colour} {shape} {MOTIONS[direction][-1]} on a {ground} background"
        seen = look(generate(pipe, prompt, (512, 512, 41), seed=number))
        print(prompt, "->", seen, flush=True)
        wanted = Seen(ground, colour, shape, direction)
        for name in hits:
            hits[name] += getattr(seen, name) == getattr(wanted, name)
    return {name: hit / count for name, hit in hits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--sheet", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rates", type=int, default=0, metavar="N", help="judge N more prompts by numbers")
    arguments = parser.parse_args()
    pipe = load_pipeline(arguments.model)
    videos = []
    for prompt in PROMPTS:
        start = time.monotonic()
        videos.append(generate(pipe, prompt, seed=arguments.seed))
        print(f"{time.monotonic() - start:5.1f} s  {prompt}")
    sheet(videos).save(arguments.sheet)
    if arguments.rates:
        print(rates(pipe, arguments.rates, arguments.seed))


if __name__ == "__main__":
    main()
