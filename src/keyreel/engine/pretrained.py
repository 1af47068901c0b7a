"""Loads small models with transformers, and refuses files that do not fit completely."""

from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers.utils import logging as transformers_logging

from keyreel.errors import ModelError

_LOAD_ERRORS = (
    OSError,
    ImportError,
    RuntimeError,
    ValueError,
    SafetensorError,
    # transformers raises these when a file holds something else than it expects.
    AttributeError,
    KeyError,
    TypeError,
    StrictDataclassError,
)


def load_pretrained(kind: Any, folder: str, setting: str, device: torch.device, dtype: torch.dtype | str) -> nn.Module:
    """Loads a model in evaluation mode. Raises ModelError, also when a weight does not fit.

    transformers would only warn of such a weight and use random values. setting: the name of the setting that gives the
    folder, for messages.
    """
    transformers_logging.disable_progress_bar()
    try:
        model, report = kind.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported like missing weights
        )
    except _LOAD_ERRORS as error:
        raise _load_error(folder, setting, error) from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        # A mismatched key comes with two shapes.
        if keys := sorted(key if isinstance(key, str) else key[0] for key in report[what]):
            raise ModelError(f"{setting}: the model in {folder} does not fit its configuration: {what} {keys[:5]}.")
    loaded: nn.Module = model.eval().requires_grad_(False).to(device)
    return loaded


def load_processor(kind: Any, folder: str, setting: str, **options: Any) -> Any:
    """Loads a tokenizer or picture processor. Raises ModelError."""
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except _LOAD_ERRORS as error:
        raise _load_error(folder, setting, error) from error


def _load_error(folder: str, setting: str, error: Exception) -> ModelError:
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    return ModelError(f"{setting}: cannot load {folder}: {reason}.")
