"""Smooths the edges between tokens in closed form: `python -m training.deblock` does it to the shipped autoencoder.

The transformer leaves each token an error of its own, which shows as steps along the edges of 64 x 64 pixels. In the
decoder's first layer each latent therefore becomes a linear function of its token and the eight around it: the one
that best takes noise away (`solve_smoothing`). That alone would blur pinned pictures, too. So the encoder's last layer
sharpens what the decoder will smooth (`solve_sharpening`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from diffusers import AutoencoderKLLTXVideo
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from training.autoencoder import (
    CELL,
    LATENTS,
    RIDGE,
    encoder_weights,
    middle_frame,
    newest_frame,
    random_latents,
)
from training.scenes import Grid

ERROR = 0.15  # standard deviation of the transformer's error in normalised latents, about as measured
CLIPS = 300


@dataclass(frozen=True)
class Mix:
    """A linear function of a token and the eight around it. weight: (78, 78, 3, 3). bias: (78,)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, latents: Tensor, outside: Tensor) -> Tensor:
        """latents: (F, 78, h, w). outside: (78,), what is taken for tokens beyond the frame's edge."""
        beyond = outside.view(1, -1, 1, 1)
        bias = self.bias + self.weight.sum((2, 3)) @ outside
        return functional.conv2d(latents - beyond, self.weight, bias, padding=1)

    def denormalised(self, mean: Tensor, std: Tensor) -> "Mix":
        """Returns the same function of latents that are not normalised."""
        weight = self.weight * std.view(-1, 1, 1, 1) / std.view(1, -1, 1, 1)
        return Mix(weight, mean + std * self.bias - weight.sum((2, 3)) @ mean)


def fit(pairs: Sequence[tuple[Tensor, Tensor]], outside: Tensor) -> Mix:
    """Fits a mix by ridge regression. pairs: input and wanted output, (F, 78, h, w) each."""
    size = 9 * LATENTS + 1
    gram, moment = torch.zeros(size, size), torch.zeros(size, LATENTS)
    beyond = outside.view(1, -1, 1, 1)
    for given, wanted in pairs:
        around = functional.unfold(functional.pad(given - beyond, (1, 1, 1, 1)), 3).transpose(1, 2).flatten(0, 1)
        x = functional.pad(around + outside.repeat_interleave(9), (0, 1), value=1.0)
        y = wanted.permute(0, 2, 3, 1).flatten(0, 2)
        gram += x.T @ x / len(x)
        moment += x.T @ y / len(x)
    solution = torch.linalg.solve(gram + RIDGE * torch.eye(size), moment)
    return Mix(solution[:-1].T.reshape(LATENTS, LATENTS, 3, 3), solution[-1])


def solve_smoothing(clean: Sequence[Tensor], outside: Tensor, seed: int) -> Mix:
    """Returns the mix that best restores latents to which noise was added."""
    generator = torch.Generator().manual_seed(seed)
    noisy = (one + ERROR * torch.randn(one.shape, generator=generator) for one in clean)
    return fit(list(zip(noisy, clean, strict=True)), outside)


def solve_sharpening(clean: Sequence[Tensor], outside: Tensor, smoothing: Mix) -> Mix:
    """Returns the mix that best undoes the smoothing. Before it, it does the same: the two nearly commute."""
    return fit([(smoothing(one, outside), one) for one in clean], outside)


def sample_latents(vae: AutoencoderKLLTXVideo, seed: int, clips: int) -> list[Tensor]:
    """Returns the normalised latents (1, 78, 8, 13) of random clips."""
    rng, grid = Random(seed), Grid(512, 832, CELL)
    mean, std = (values.view(1, -1, 1, 1) for values in (vae.latents_mean, vae.latents_std))
    return [(random_latents(rng, grid)[:, :, 0] - mean) / std for _ in range(clips)]


@torch.no_grad()
def deblock(vae: AutoencoderKLLTXVideo, seed: int, clips: int = CLIPS) -> None:
    """Sets the decoder's first layer and the encoder's last, in fp32. Doing it again changes nothing."""
    mean, std = vae.latents_mean.float(), vae.latents_std.float()
    clean, outside = sample_latents(vae, seed, clips), -mean / std
    smoothing = solve_smoothing(clean, outside, seed)
    sharpening = solve_sharpening(clean, outside, smoothing)

    smooth, decoder = smoothing.denormalised(mean, std), vae.decoder.conv_in.conv
    middle_frame(decoder)[:LATENTS, :LATENTS] = smooth.weight
    decoder.bias[:LATENTS] = smooth.bias

    sharp, encoder = sharpening.denormalised(mean, std), vae.encoder.conv_out.conv
    newest_frame(encoder)[:LATENTS] = torch.einsum("olyx,lc->ocyx", sharp.weight, encoder_weights(vae.encoder))
    encoder.bias[:LATENTS] = sharp.bias


def main() -> None:
    folder = Path("src/keyreel/demo/vae")
    vae = AutoencoderKLLTXVideo.from_pretrained(folder, torch_dtype=torch.float32)
    deblock(vae, seed=0)
    weights = {name: value.bfloat16() for name, value in vae.state_dict().items()}
    save_file(weights, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})


if __name__ == "__main__":
    main()
