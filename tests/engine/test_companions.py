"""What recipes need, loaded with the model: what cannot work is said at once."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from keyreel.engine.models import Model, load_model
from keyreel.errors import ModelError
from keyreel.recipes import Abilities, RecipeName, Wishes
from tests.checkpoints import tiny_upsampler


def test_all_is_there(full_model: Model) -> None:
    assert full_model.upsampler
    assert full_model.distilled_lora
    assert not any(weight.requires_grad for weight in full_model.upsampler.parameters())
    assert full_model.abilities.upsampler != full_model.abilities.distilled_lora


def test_a_bare_model(model: Model) -> None:
    assert (model.upsampler, model.distilled_lora, model.abilities) == (None, None, Abilities())


@pytest.mark.parametrize("recipe", ["multiscale", "distilled"])
def test_the_operators_recipe_must_be_possible(checkpoint: Path, tmp_path: Path, recipe: RecipeName) -> None:
    with pytest.raises(ModelError, match=f"Recipe {recipe} needs"):
        load_model(str(checkpoint), "cpu", tmp_path, Wishes(recipe=recipe))


def test_a_distilled_model_is_not_guided(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "distilled")
    assert load_model(str(folder), "cpu", tmp_path).abilities == Abilities(distilled=True)
    with pytest.raises(ModelError, match="Recipe stg is not for distilled models"):
        load_model(str(folder), "cpu", tmp_path, Wishes(recipe="stg"))


def test_a_lora_for_another_model(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "wide.safetensors"
    weights = {
        f"transformer.transformer_blocks.0.attn1.to_q.lora_{side}.weight": torch.ones(shape)
        for side, shape in (("A", (4, 64)), ("B", (64, 4)))
    }
    save_file(weights, path)
    with pytest.raises(ModelError, match=r"KEYREEL_DISTILLED_LORA cannot be used: .*wide\.safetensors"):
        load_model(str(checkpoint), "cpu", tmp_path, Wishes(distilled_lora=str(path)))


def test_an_upsampler_for_other_latents(checkpoint: Path, tmp_path: Path) -> None:
    own = tiny_upsampler(tmp_path / "own", channels=8)
    with pytest.raises(ModelError, match="for latents of 8 channels; this model has 16"):
        load_model(str(checkpoint), "cpu", tmp_path, Wishes(upsampler=str(own)))
