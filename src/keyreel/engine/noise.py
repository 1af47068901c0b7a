"""Named noise streams: all randomness of a video, derived from its seed alone.

Each use of noise has its own stream, so one part's draws never shift another part's. Noise does not depend on the
device, on other requests, on earlier steps or on a resume.
"""

import hashlib

import torch

Shape = tuple[int, ...]


def fork(seed: int, purpose: str) -> int:
    """Returns a seed whose streams are independent of those of `seed`."""
    return int.from_bytes(_digest(seed, purpose)[:8], "big")


def draw(seed: int, purpose: str, index: int, shape: Shape) -> torch.Tensor:
    """Returns standard normal noise, fp32, on the CPU. `(seed, purpose, index)` always gives the same numbers."""
    digest = _digest(seed, purpose, index)
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def _digest(*names: int | str) -> bytes:
    return hashlib.sha256("/".join(map(str, names)).encode()).digest()
