"""Safety classifiers of pictures and of prompts: any classification model published for transformers."""

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
from keyreel.safety.moderation import Scores
from keyreel.video.job import Pixels

BATCH = 8
"""Pictures that are classified at once."""
WINDOW = 512
"""Tokens of a window, at most."""


class PictureClassifier:
    """An image classification model. It is small and runs in fp32: its scores are compared with thresholds."""

    def __init__(self, folder: str, setting: str, device: torch.device) -> None:
        # Not the torchvision backend: it is not installed everywhere, and it resizes differently.
        self._processor = load_processor(AutoImageProcessor, folder, setting, backend="pil")
        self._model = load_pretrained(AutoModelForImageClassification, folder, setting, device, torch.float32)
        self._device = device
        self.labels: Collection[str] = _labels(self._model)

    @torch.inference_mode()
    def scores(self, items: Sequence[Pixels]) -> list[Scores]:
        """Returns the scores of each picture (height, width, 3)."""
        found: list[Scores] = []
        for start in range(0, len(items), BATCH):
            batch = list(items[start : start + BATCH])
            inputs = self._processor(batch, input_data_format="channels_last", return_tensors="pt")
            found += _scores(self._model, self._model(pixel_values=inputs["pixel_values"].to(self._device)).logits)
        return found


class TextClassifier:
    """A sequence classification model. Reads a long text in overlapping windows and takes the highest scores."""

    def __init__(self, folder: str, setting: str, device: torch.device) -> None:
        self._tokenizer = load_processor(AutoTokenizer, folder, setting)
        self._model = load_pretrained(AutoModelForSequenceClassification, folder, setting, device, torch.float32)
        self._device = device
        self.labels: Collection[str] = _labels(self._model)

    def scores(self, items: Sequence[str]) -> list[Scores]:
        """Returns the scores of each text."""
        return [self._classify(text) for text in items]

    @torch.inference_mode()
    def _classify(self, text: str) -> Scores:
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
    """Turns logits (B, labels) into scores. Labels exclude each other unless the configuration says otherwise."""
    independent = model.config.problem_type == "multi_label_classification" or logits.shape[1] == 1
    probabilities = logits.float().sigmoid() if independent else logits.float().softmax(1)
    return [dict(zip(_labels(model), row, strict=True)) for row in probabilities.tolist()]
