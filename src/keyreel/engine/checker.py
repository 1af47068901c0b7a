"""Classifiers of pictures and of prompts, as published for transformers."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from keyreel.engine.pretrained import load_pretrained, load_processor
from keyreel.job import Pixels
from keyreel.moderation import Scores

BATCH = 8
WINDOW = 512
"""Tokens that a text classifier reads at once, at most."""


class PictureClassifier:
    """A model for image classification. Runs in fp32: it is small, and its scores are compared with thresholds."""

    def __init__(self, folder: str, setting: str, device: torch.device) -> None:
        # The variant on PIL: the one on torchvision is not installed everywhere, and resizes differently.
        self._processor = load_processor(AutoImageProcessor, folder, setting, backend="pil")
        self._model = load_pretrained(AutoModelForImageClassification, folder, setting, device, torch.float32)
        self._device = device
        self.labels: Collection[str] = _labels(self._model)

    @torch.inference_mode()
    def scores(self, items: Sequence[Pixels]) -> list[Scores]:
        """items: (height, width, 3) each."""
        found: list[Scores] = []
        for start in range(0, len(items), BATCH):
            batch = list(items[start : start + BATCH])
            read = self._processor(batch, input_data_format="channels_last", return_tensors="pt")
            found += _scores(self._model, self._model(pixel_values=read["pixel_values"].to(self._device)).logits)
        return found


class TextClassifier:
    """A model for sequence classification. A long text is read in windows; what any of them holds, counts."""

    def __init__(self, folder: str, setting: str, device: torch.device) -> None:
        self._tokenizer = load_processor(AutoTokenizer, folder, setting)
        self._model = load_pretrained(AutoModelForSequenceClassification, folder, setting, device, torch.float32)
        self._device = device
        self.labels: Collection[str] = _labels(self._model)

    def scores(self, items: Sequence[str]) -> list[Scores]:
        return [self._read(text) for text in items]

    @torch.inference_mode()
    def _read(self, text: str) -> Scores:
        length = min(WINDOW, self._tokenizer.model_max_length)
        windows = self._tokenizer(
            text,
            truncation=True,
            max_length=length,
            stride=length // 8,
            return_overflowing_tokens=True,
            padding=True,
            return_tensors="pt",
        ).to(self._device)
        logits = self._model(input_ids=windows["input_ids"], attention_mask=windows["attention_mask"]).logits
        found = _scores(self._model, logits)
        return {label: max(scores[label] for scores in found) for label in self.labels}


def _labels(model: Any) -> list[str]:
    names: dict[int, str] = model.config.id2label
    return [names[index] for index in sorted(names)]


def _scores(model: Any, logits: Tensor) -> list[Scores]:
    """logits: (B, labels). Labels exclude each other unless the model's configuration says otherwise."""
    several = model.config.problem_type == "multi_label_classification" or logits.shape[1] == 1
    shares = logits.float().sigmoid() if several else logits.float().softmax(1)
    return [dict(zip(_labels(model), row, strict=True)) for row in shares.tolist()]
