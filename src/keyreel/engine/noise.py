"""Named noise streams: all randomness of a video, from its seed alone.

Each use of noise has a stream of its own, so that what one part draws never shifts what another part gets: noise does
not depend on the device, on other requests, on earlier steps or on a resume.
"""

import hashlib

import torch

Shape = tuple[int, ...]


def draw(seed: int, purpose: str, index: int, shape: Shape) -> torch.Tensor:
    """Standard normal noise, fp32, on the CPU: `(seed, purpose, index)` always gives the same numbers."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    return torch.randn(shape, generator=generator, dtype=torch.float32)
