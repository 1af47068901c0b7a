import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from keyreel.engine.pretrained import load_pretrained, load_processor
from keyreel.errors import ModelError
from tests.small_models import FORBIDDEN, text_classifier

Weights = dict[str, torch.Tensor]

SETTING = "KEYREEL_PROMPT_CHECKER"
WEIGHTS = "model.safetensors"


def load(folder: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    return load_pretrained(AutoModelForSequenceClassification, str(folder), SETTING, torch.device("cpu"), dtype)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return text_classifier(tmp_path / "model")


def test_a_loaded_model_is_ready_to_predict(folder: Path) -> None:
    model = load(folder, torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert not model.training
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("classifier.bias"), "missing_keys ['classifier.bias']"),
        (lambda weights: weights.update(extra=torch.ones(1)), "unexpected_keys ['extra']"),
        (lambda weights: weights.update({"classifier.bias": torch.ones(3)}), "mismatched_keys ['classifier.bias']"),
    ],
    ids=["missing", "unexpected", "mismatched"],
)
def test_a_weight_that_does_not_fit_is_named(folder: Path, change: Callable[[Weights], object], message: str) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    expected = f"{SETTING}: the model in {folder} does not fit its configuration: {message}."
    with pytest.raises(ModelError, match=f"^{re.escape(expected)}$"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (WEIGHTS, "", "header"),
        (WEIGHTS, "junk" * 9, "header"),
        ("config.json", '{"model_type": "bert", "hidden_size": "wide"}', "hidden_size"),
        ("config.json", '{"model_type": "bert", "hidden_act": "magic"}', "magic"),
    ],
)
def test_a_damaged_model_is_reported(folder: Path, name: str, content: str, reason: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(ModelError, match=f"^{SETTING}: cannot load {re.escape(str(folder))}: .*{reason}"):
        load(folder)


def test_a_truncated_model_is_reported(folder: Path) -> None:
    """A download that was broken off leaves such a file."""
    weights = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match=f"^{SETTING}: cannot load {re.escape(str(folder))}: "):
        load(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    """To read a pickle is to run its code."""
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=f"^{SETTING}: cannot load {re.escape(str(folder))}: .*{WEIGHTS}"):
        load(folder)


def test_an_error_of_transformers_is_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused:
        load(tmp_path / "missing")
    assert re.fullmatch(rf"{SETTING}: cannot load {re.escape(str(tmp_path))}/missing: .*[^.]\.", str(refused.value))


def test_a_processor_gets_its_options(folder: Path) -> None:
    tokenizer = load_processor(AutoTokenizer, str(folder), SETTING, truncation_side="left")
    ids = tokenizer(f"red {FORBIDDEN}", truncation=True, max_length=3).input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", FORBIDDEN, "[SEP]"]


@pytest.mark.parametrize(
    ("name", "content"), [("tokenizer.json", "{"), ("tokenizer.json", "{}"), ("tokenizer_config.json", "[]")]
)
def test_a_damaged_processor_is_reported(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(ModelError, match=f"^{SETTING}: cannot load {re.escape(str(folder))}: "):
        load_processor(AutoTokenizer, str(folder), SETTING)
