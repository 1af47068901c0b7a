"""Previews: what a video is going to look like as far as one step can tell, decoded small."""

import torch
from diffusers import AutoencoderKLLTXVideo
from torch.nn import functional

from keyreel.engine import latents
from keyreel.engine.autoencoder import decode
from keyreel.job import Pixels
from keyreel.media.samples import spread

COUNT = 5
"""Previews in a pass, at most. With so few frames all of them take about 5 % of the demo model's time, and less of
a large model's: there a step is dearer, and what is decoded is smaller beside the video."""
FRAMES = 4
CELLS = 16
"""Latents on the longer side: a larger grid is shrunk."""
PIXELS = 256


def is_due(done: int, steps: int) -> bool:
    """After which of a pass' steps there is a preview: the first, then evenly spread, not the last."""
    return done < steps and (done - 1) * COUNT % steps < COUNT


def preview(vae: AutoencoderKLLTXVideo, clean: torch.Tensor, timestep: float) -> Pixels:
    """Normalised latents (1, C, F, H, W), free of noise, to frames (n, height, width, 3) from all over the video.

    Each is decoded as if it were a video of one frame, which costs an eighth of what its latents hold.
    """
    frames = clean[0, :, spread(clean.shape[2], FRAMES)].transpose(0, 1)
    cells = _shrunk(frames, CELLS)[:, :, None]
    pixels = next(decode(vae, latents.denormalise(cells, vae).to(vae.dtype), timestep))
    small = _shrunk(pixels.float().clamp(-1, 1), PIXELS)
    result: Pixels = ((small + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return result


def _shrunk(pictures: torch.Tensor, longest: int) -> torch.Tensor:
    """(n, C, H, W) with neither side longer than this."""
    height, width = pictures.shape[2:]
    scale = longest / max(height, width)
    if scale >= 1:
        return pictures
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return functional.interpolate(pictures, size=size, mode="area")
