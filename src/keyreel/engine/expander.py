"""Prompt expansion on this machine: a language model, and a vision model that captions the first picture for it."""

import time
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from keyreel.engine.pretrained import load_pretrained, load_processor
from keyreel.errors import ModelError
from keyreel.safety.expansion import (
    CAPTION_PROMPT,
    MAX_TOKENS,
    TEMPERATURE,
    LocalModel,
    clean,
    messages,
    seed_of,
    too_slow,
)

LANGUAGE_SETTING = "KEYREEL_EXPANDER_MODEL"
VISION_SETTING = "KEYREEL_EXPANDER_VISION_MODEL"


class LanguageModel:
    """A causal language model that follows instructions: its tokenizer has a chat template."""

    def __init__(self, folder: str, device: torch.device) -> None:
        self._tokenizer = load_processor(AutoTokenizer, folder, LANGUAGE_SETTING)
        if not self._tokenizer.chat_template:
            raise ModelError(
                f"{LANGUAGE_SETTING}: {folder} has no chat template. Choose a model that follows instructions."
            )
        self._model = load_pretrained(AutoModelForCausalLM, folder, LANGUAGE_SETTING, device, "auto")
        self._device = device

    def answer(self, conversation: list[dict[str, Any]], seconds: float) -> str:
        """Returns the model's answer within about `seconds`. Samples with torch's global random state."""
        inputs = self._tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        ).to(self._device)
        return str(self._tokenizer.decode(_generate(self._model, inputs, seconds), skip_special_tokens=True))


class VisionModel:
    """Describes a picture. The model follows instructions or, without a chat template, is a captioning model."""

    def __init__(self, folder: str, device: torch.device) -> None:
        self._processor = load_processor(AutoProcessor, folder, VISION_SETTING, backend="pil")
        self._model = load_pretrained(AutoModelForImageTextToText, folder, VISION_SETTING, device, "auto")
        self._device = device

    def caption(self, picture: NDArray[Any], seconds: float) -> str:
        """Returns a description of a picture (height, width, 3) within about `seconds`."""
        image = Image.fromarray(picture)
        if self._processor.chat_template:
            content = [{"type": "image", "image": image}, {"type": "text", "text": CAPTION_PROMPT}]
            inputs = self._processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            )
        else:
            inputs = self._processor(images=image, return_tensors="pt")
        inputs = inputs.to(self._device, dtype=self._model.dtype)
        return str(self._processor.decode(_generate(self._model, inputs, seconds), skip_special_tokens=True))


class LocalExpander:
    """Expands prompts with the models in the folders that `models` names."""

    def __init__(self, models: LocalModel, device: torch.device) -> None:
        self._device = device
        self._timeout = models.timeout
        self._language = LanguageModel(models.model, device)
        self._vision = VisionModel(models.vision_model, device) if models.vision_model else None

    @torch.inference_mode()
    def expand(self, prompt: str, seed: int, picture: NDArray[Any] | None) -> str:
        """Returns the expanded prompt, which is the same for the same seed. Raises ExpansionError.

        picture: (height, width, 3), what the video starts from.
        """
        end = time.monotonic() + self._timeout
        with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(seed_of(seed))
            caption = None
            if picture is not None and self._vision:
                caption = clean(self._vision.caption(picture, end - time.monotonic()))
            answer = self._language.answer(messages(prompt, caption), end - time.monotonic())
        if time.monotonic() > end:
            raise too_slow(self._timeout)
        return clean(answer)


def _generate(model: Any, inputs: Any, seconds: float) -> torch.Tensor:
    """Returns the generated token ids. When the time is over it stops, even within a sentence."""
    ids = model.generate(
        **inputs, do_sample=True, temperature=TEMPERATURE, max_new_tokens=MAX_TOKENS, max_time=max(seconds, 0.0)
    )
    prompt_length = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    generated: torch.Tensor = ids[0, prompt_length:]
    return generated
