from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend

import keyreel
from keyreel.checkpoints.memory import PROMPT_TOKENS
from keyreel.engine import prompt as prompt_module
from keyreel.engine.devices import attention_backends
from keyreel.engine.models import Model
from keyreel.engine.prompt import CACHED_BYTES, PromptEncoder
from keyreel.engine.recent import Recent
from keyreel.fal.schema import EXAMPLE_PROMPTS, Request


@pytest.fixture(scope="module")
def demo() -> PromptEncoder:
    return keyreel.load_model("demo", "cpu").prompts


@torch.inference_mode()
def test_an_embedding_equals_that_of_the_padded_prompt(model: Model) -> None:
    """diffusers pads prompts to 256 tokens and masks the padding."""
    padded = model.prompts.tokenizer(
        "a red star", padding="max_length", max_length=PROMPT_TOKENS, truncation=True, return_tensors="pt"
    )
    stock = model.prompts.encoder(padded.input_ids, attention_mask=padded.attention_mask).last_hidden_state
    ours = model.prompts.encode("  a red star ").embedding
    torch.testing.assert_close(ours, stock[:, : ours.shape[1]], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_the_text_encoder_does_not_use_cudnns_attention(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its attention has a bias."""
    asked: list[bool] = []

    def backends(device: torch.device, *, biased: bool) -> list[SDPBackend]:
        asked.append(biased)
        return attention_backends(device, biased=biased)

    monkeypatch.setattr(prompt_module, "attention_backends", backends)
    model.prompts._encode("a red star")
    assert asked == [True]


@torch.inference_mode()
def test_a_long_prompt_is_cut_and_still_ends_with_the_end_token(model: Model) -> None:
    long = model.prompts.encode("red " * 300)
    assert long.is_cut
    assert torch.equal(long.embedding, model.prompts.encode("red " * (PROMPT_TOKENS - 1)).embedding)


@torch.inference_mode()
def test_unknown_words_are_named_once_and_as_they_were_written(demo: PromptEncoder) -> None:
    text = demo.encode("A Dragon's red star, a dragon and a Rüssel; a Dragon! \N{FOX FACE}")
    assert text.unknown == ("Dragon", "s", "dragon", "Rüssel")
    assert demo.encode("a crimson sphere moving left").unknown == ()  # known as red and circle


@torch.inference_mode()
def test_every_word_of_the_examples_is_known(demo: PromptEncoder) -> None:
    for prompt in (*EXAMPLE_PROMPTS, Request.model_fields["negative_prompt"].default):
        assert demo.encode(prompt).unknown == (), prompt


@torch.inference_mode()
def test_an_empty_prompt_has_one_token(model: Model) -> None:
    assert model.prompts.encode("").embedding.shape[1] == 1


@torch.inference_mode()
def test_a_prompt_is_encoded_once_as_long_as_there_is_room(model: Model) -> None:
    encoded: list[str] = []

    def count(_module: object, _arguments: object) -> None:
        encoded.append("")

    size = model.prompts.encode("a star").embedding.nbytes
    prompts = replace(model.prompts, recent=Recent(2 * size, lambda text: text.embedding.nbytes))
    with prompts.encoder.register_forward_pre_hook(count):
        first = prompts.encode("a star")
        again = prompts.encode("a star")
        assert len(encoded) == 1
        assert torch.equal(again.embedding, first.embedding)
        assert replace(again, embedding=first.embedding) == first
        for prompt in ("a tree", "a moon"):
            prompts.encode(prompt)
        assert torch.equal(prompts.encode("a star").embedding, first.embedding)
        assert len(encoded) == 4


def test_prompts_of_the_largest_model_fit_into_the_cache() -> None:
    assert CACHED_BYTES // (PROMPT_TOKENS * 4096 * 2) == 128
