import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyreel.safety.expansion import ExpansionError, clean, messages, seed_of


@pytest.mark.parametrize(
    ("answer", "paragraph"),
    [
        ("  A ball\n\nrolls. ", "A ball rolls."),
        ('"A ball rolls."', "A ball rolls."),
        ("\u201cA ball rolls.\u201d", "A ball rolls."),
        ('"One" and "two"', '"One" and "two"'),
        ("<think>Hm,\nwhat?</think>\nA ball rolls.", "A ball rolls."),
        ("It says 'no'", "It says 'no'"),
    ],
)
def test_answer_becomes_one_paragraph(answer: str, paragraph: str) -> None:
    assert clean(answer) == paragraph


@pytest.mark.parametrize("answer", ["", " \n", '""', "<think>Hm</think>", "<think>Hm"])
def test_answer_without_text_is_an_error(answer: str) -> None:
    with pytest.raises(ExpansionError, match="empty answer"):
        clean(answer)


def test_caption_of_the_first_frame_follows_the_prompt() -> None:
    system, user = messages("it changes", "A wall.")
    assert (system["role"], user["role"]) == ("system", "user")
    assert user["content"] == "it changes\n\nThe first frame shows: A wall."
    assert messages("it changes", None) == [system, {"role": "user", "content": "it changes"}]


@given(st.integers(-(2**63), 2**63 - 1))
def test_seed_is_repeatable_and_has_31_bits(seed: int) -> None:
    assert 0 <= seed_of(seed) < 2**31
    assert seed_of(seed) == seed_of(seed)
