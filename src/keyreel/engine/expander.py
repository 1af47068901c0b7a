"""A language model on this machine that expands prompts, and one that sees for it."""

import time
from typing import Any

import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from keyreel.engine.pretrained import load_pretrained, load_processor
from keyreel.errors import ModelError
from keyreel.expansion import CAPTION_PROMPT, MAX_TOKENS, TEMPERATURE, LocalModel, clean, messages, seed_of, too_slow

LANGUAGE = "KEYREEL_EXPANDER_MODEL"
VISION = "KEYREEL_EXPANDER_VISION_MODEL"


class LanguageModel:
    """A causal language model that was tuned to follow instructions: its tokenizer has a chat template."""

    def __init__(self, folder: str, device: torch.device) -> None:
        self._tokenizer = load_processor(AutoTokenizer, folder, LANGUAGE)
        if not self._tokenizer.chat_template:
            raise ModelError(f"{LANGUAGE}: {folder} has no chat template. Choose a model that follows instructions.")
        self._model = load_pretrained(AutoModelForCausalLM, folder, LANGUAGE, device, "auto")
        self._device = device

    def answer(self, conversation: list[dict[str, Any]], seconds: float) -> str:
        """Draws from torch's own random numbers."""
        inputs = self._tokenizer.apply_chat_template(
            conversation, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        ).to(self._device)
        return str(self._tokenizer.decode(_generate(self._model, inputs, seconds), skip_special_tokens=True))


class VisionModel:
    """Says what a picture shows: a model that is asked, or one that does nothing else and has no chat template."""

    def __init__(self, folder: str, device: torch.device) -> None:
        self._processor = load_processor(AutoProcessor, folder, VISION, backend="pil")
        self._model = load_pretrained(AutoModelForImageTextToText, folder, VISION, device, "auto")
        self._device = device

    def caption(self, picture: NDArray[Any], seconds: float) -> str:
        """picture: (height, width, 3)."""
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
    """The models that `models` names, which lie in folders."""

    def __init__(self, models: LocalModel, device: torch.device) -> None:
        self._device = device
        self._timeout = models.timeout
        self._language = LanguageModel(models.model, device)
        self._vision = VisionModel(models.vision_model, device) if models.vision_model else None

    @torch.inference_mode()
    def expand(self, prompt: str, seed: int, picture: NDArray[Any] | None) -> str:
        """The expanded prompt: the same for the same seed. picture: (height, width, 3), what the video starts from.

        Raises ExpansionError.
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
    """The ids that were added. Stops early, in the middle of a sentence, when the time is over."""
    ids = model.generate(
        **inputs, do_sample=True, temperature=TEMPERATURE, max_new_tokens=MAX_TOKENS, max_time=max(seconds, 0.0)
    )
    known = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    added: torch.Tensor = ids[0, known:]
    return added
