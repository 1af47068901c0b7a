import pytest
import torch

import keyreel
from keyreel.checkpoints.memory import PROMPT_TOKENS
from keyreel.engine.models import Model
from keyreel.engine.prompt import CACHED_PROMPTS, PromptEncoder
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
def test_only_recent_prompts_are_cached(model: Model) -> None:
    first = model.prompts.encode("a star 0")
    assert model.prompts.encode("a star 0") is first
    for number in range(1, CACHED_PROMPTS + 1):
        model.prompts.encode(f"a star {number}")
    assert len(model.prompts.recent) == CACHED_PROMPTS
    assert model.prompts.encode("a star 0") is not first
