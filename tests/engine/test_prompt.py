import torch

from keyreel.engine.models import Model
from keyreel.engine.prompt import CACHED_PROMPTS, MAX_TOKENS


@torch.inference_mode()
def test_padding_would_change_nothing(model: Model) -> None:
    """The stock pipeline pads to 256 tokens and masks them."""
    padded = model.prompts.tokenizer(
        "a red star", padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    stock = model.prompts.encoder(padded.input_ids, attention_mask=padded.attention_mask).last_hidden_state
    ours = model.prompts.encode("  a red star ").embedding
    torch.testing.assert_close(ours, stock[:, : ours.shape[1]], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_a_long_prompt_is_cut_and_ends_like_any_other(model: Model) -> None:
    long = model.prompts.encode("red " * 300)
    assert long.is_cut
    assert torch.equal(long.embedding, model.prompts.encode("red " * (MAX_TOKENS - 1)).embedding)


@torch.inference_mode()
def test_an_empty_prompt_is_a_prompt(model: Model) -> None:
    assert model.prompts.encode("").embedding.shape[1] == 1


@torch.inference_mode()
def test_recent_prompts_are_kept_and_old_ones_go(model: Model) -> None:
    first = model.prompts.encode("a star 0")
    assert model.prompts.encode("a star 0") is first
    for number in range(1, CACHED_PROMPTS + 1):
        model.prompts.encode(f"a star {number}")
    assert len(model.prompts.recent) == CACHED_PROMPTS
    assert model.prompts.encode("a star 0") is not first
