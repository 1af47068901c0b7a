from pathlib import Path
from random import Random

import pytest
import torch
from training.expander import IGNORED, NOISE, batch, random_pair, train, write_expander
from training.text import new_tokenizer, vocabulary

from keyreel.engine.expander import LocalExpander
from keyreel.safety.expansion import LocalModel


def test_descriptions_contain_what_the_idea_names() -> None:
    known = set(vocabulary())
    for index in range(200):
        idea, description = random_pair(Random(index))  # noqa: S311
        assert set(description.split()) <= known
        named = set(idea.split()) - {NOISE, "a", "video", "of", "scene", "with", "an", "animation", "there", "is"}
        assert named <= set(description.split())


def test_only_the_description_counts_in_the_loss() -> None:
    tokenizer = new_tokenizer()
    ids, mask, labels = batch(tokenizer, Random(3))  # noqa: S311
    for row, seen, wanted in zip(ids, mask.bool(), labels, strict=True):
        whole = tokenizer.decode(row[seen])
        learned = tokenizer.decode(wanted[wanted != IGNORED])
        assert learned.endswith("</s>")
        assert whole == whole.partition("</s>")[0] + "</s> " + learned


@pytest.mark.slow
def test_a_few_steps_give_a_model_that_expands(tmp_path: Path) -> None:
    tokenizer = new_tokenizer()
    write_expander(tmp_path, train(tokenizer, steps=40), tokenizer)
    expander = LocalExpander(LocalModel(str(tmp_path), None, 60.0), torch.device("cpu"))
    assert set(expander.expand("a red kitten", 1, None).split()) <= set(vocabulary())
