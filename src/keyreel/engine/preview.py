"""Previews: small frames of the video that the current step predicts."""

import torch
from diffusers import AutoencoderKLLTXVideo
from torch.nn import functional

from keyreel.engine import latents
from keyreel.engine.autoencoder import decode
from keyreel.media.samples import evenly_spaced
from keyreel.video.canvas import Size, margins
from keyreel.video.job import Pixels

COUNT = 5
"""Previews in a pass, at most. Together they take about 5 % of the demo model's time. For a large model it is less: a
step costs more, and a preview is smaller compared with the video."""
FRAMES = 4
"""Frames of a preview, at most."""
CELLS = 16
"""Latent cells on the longer side, at most. A larger grid is shrunk."""
PIXELS = 256
"""Pixels on the longer side, at most."""


def is_due(done: int, steps: int) -> bool:
    """Whether a preview follows step `done` of a pass: after the first, then evenly spread, never after the last."""
    return done < steps and (done - 1) * COUNT % steps < COUNT


def preview(vae: AutoencoderKLLTXVideo, clean: torch.Tensor, timestep: float) -> Pixels:
    """Decodes normalised, clean latents (1, C, F, H, W) to a few frames (n, height, width, 3), evenly spread.

    Each is decoded as a video of one frame, which costs an eighth of decoding all frames of its latents.
    """
    frames = clean[0, :, evenly_spaced(clean.shape[2], FRAMES)].transpose(0, 1)
    cells = _shrunk(frames, CELLS)[:, :, None]
    pixels = next(decode(vae, latents.denormalise(cells, vae).to(vae.dtype), timestep))
    small = _shrunk(pixels.float().clamp(-1, 1), PIXELS)
    result: Pixels = ((small + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return result


def without_margins(pixels: Pixels, drawn: Size, size: Size) -> Pixels:
    """Cuts off the margins that the video will not have. pixels: (n, height, width, 3), a small copy of `drawn`."""
    height, width = pixels.shape[1:3]
    inner = Size(round(width * size.width / drawn.width), round(height * size.height / drawn.height))
    left, top = margins(Size(width, height), inner)
    return pixels[:, top : top + inner.height, left : left + inner.width]


def _shrunk(pictures: torch.Tensor, longest: int) -> torch.Tensor:
    """Shrinks pictures (n, C, H, W) until neither side is longer than `longest`."""
    height, width = pictures.shape[2:]
    scale = longest / max(height, width)
    if scale >= 1:
        return pictures
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return functional.interpolate(pictures, size=size, mode="area")
