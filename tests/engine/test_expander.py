import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from keyreel.checkpoints.catalogue import DEMO
from keyreel.engine.expander import LocalExpander
from keyreel.errors import ModelError
from keyreel.safety.expansion import ExpansionError, LocalModel
from tests.small_models import WORDS, captioner, language_model, vision_model

CPU = torch.device("cpu")
PICTURES = [np.full((40, 60, 3), level, np.uint8) for level in (0, 200)]


def expander(model: Path, vision: Path | None = None, timeout: float = 60.0) -> LocalExpander:
    return LocalExpander(LocalModel(str(model), str(vision) if vision else None, timeout), CPU)


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("language"))


@pytest.fixture(scope="module")
def language_expander(language: Path) -> LocalExpander:
    return expander(language)


def test_the_output_depends_only_on_prompt_and_seed(language_expander: LocalExpander) -> None:
    torch.manual_seed(1)
    first = language_expander.expand("the red circle", 3, None)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert language_expander.expand("the red circle", 3, None) == first
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is unchanged
    assert language_expander.expand("the red circle", 4, None) != first
    assert language_expander.expand("the blue circle", 3, None) != first
    assert set(first.split()) <= {*WORDS}


@pytest.mark.slow
@pytest.mark.parametrize("vision", [vision_model, captioner])
def test_a_picture_matters_only_to_an_expander_with_vision(
    language: Path, tmp_path: Path, vision: Callable[[Path], Path]
) -> None:
    blind, seeing = expander(language), expander(language, vision(tmp_path))
    dark, light = PICTURES
    assert blind.expand("the sea", 3, dark) == blind.expand("the sea", 3, None)
    assert seeing.expand("the sea", 3, None) == blind.expand("the sea", 3, None)
    assert seeing.expand("the sea", 3, dark) == seeing.expand("the sea", 3, dark)
    assert len({seeing.expand("the sea", 3, picture) for picture in (dark, light, None)}) == 3


def test_expansion_has_a_timeout(language: Path) -> None:
    with pytest.raises(ExpansionError, match=re.escape("longer than 0.001 s (KEYREEL_EXPANDER_TIMEOUT)")):
        expander(language, timeout=0.001).expand("the sea", 3, None)


def test_a_model_that_cannot_expand_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="KEYREEL_EXPANDER_MODEL: cannot load"):
        expander(tmp_path / "missing")
    with pytest.raises(ModelError, match="has no chat template"):
        expander(language_model(tmp_path / "base", template=None))
    with pytest.raises(ModelError, match="KEYREEL_EXPANDER_VISION_MODEL: cannot load"):
        expander(language_model(tmp_path / "model"), tmp_path / "missing")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("idea", "kept"),
    [
        ("a red ball", "a red ball"),
        ("big blue star", "a big blue star"),
        ("crimson sphere at night", "red circle"),
        ("yellow moon rising over the sea", "a yellow moon rising over the sea"),
        ("slow zoom in", "slow zoom in"),
    ],
)
def test_the_demo_expander_keeps_what_the_idea_names(idea: str, kept: str) -> None:
    demo = expander(DEMO / "expander")
    expanded = {demo.expand(idea, seed, None) for seed in range(4)}
    assert all(kept in prompt for prompt in expanded), expanded
    assert all(len(prompt.split()) >= len(idea.split()) for prompt in expanded)


def test_the_demo_expander_is_small_and_gives_varied_answers() -> None:
    demo = expander(DEMO / "expander")
    assert len({demo.expand("a red ball", seed, None) for seed in range(8)}) > 4
    assert sum(path.stat().st_size for path in (DEMO / "expander").iterdir()) < 2 * 2**20
