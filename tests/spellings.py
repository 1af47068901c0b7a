"""The key names under which published LoRA files store the same weights."""

import re
from collections.abc import Callable

from torch import Tensor

Factors = dict[str, tuple[Tensor, Tensor]]
"""The factors A (rank, in) and B (out, rank) by module path."""


def original(module: str) -> str:
    """Returns the module's name in Lightricks' checkpoints."""
    return re.sub("^time_embed", "adaln_single", re.sub("^proj_in", "patchify_proj", module))


def dotted(prefix: str, a: str, b: str, rename: Callable[[str], str] = str) -> Callable[[Factors], dict[str, Tensor]]:
    """Returns a function that names factors `{prefix}{path}.{a}.weight` and `{prefix}{path}.{b}.weight`."""

    def spell(factors: Factors) -> dict[str, Tensor]:
        down = {f"{prefix}{rename(path)}.{a}.weight": factor for path, (factor, _) in factors.items()}
        up = {f"{prefix}{rename(path)}.{b}.weight": factor for path, (_, factor) in factors.items()}
        return down | up

    return spell


def underscored(module: str) -> str:
    """Returns the module's name as kohya's scripts spell it."""
    return module.replace(".", "_")


SPELLINGS = {
    "diffusers": dotted("transformer.", "lora_A", "lora_B"),
    "comfy": dotted("diffusion_model.", "lora_A", "lora_B"),
    "comfy, original names": dotted("diffusion_model.", "lora_A", "lora_B", original),
    "comfy, down and up": dotted("diffusion_model.", "lora_down", "lora_up", original),
    "checkpoint": dotted("model.diffusion_model.", "lora_A", "lora_B", original),
    "peft": dotted("base_model.model.", "lora_A", "lora_B"),
    "peft, transformer": dotted("base_model.model.transformer.", "lora_A", "lora_B"),
    "bare": dotted("", "lora_A", "lora_B"),
    "bare, default": dotted("", "lora_A.default", "lora_B.default"),
    "old diffusers": dotted("transformer.", "lora.down", "lora.up"),
    "kohya": dotted("lora_unet_", "lora_down", "lora_up", underscored),
    "kohya, original names": dotted("lora_unet_", "lora_down", "lora_up", lambda m: underscored(original(m))),
    "kohya, transformer": dotted("lora_transformer_", "lora_down", "lora_up", underscored),
}
