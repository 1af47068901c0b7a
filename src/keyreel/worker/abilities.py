"""What the model of a worker can do, as far as its name tells, so that the page offers nothing else."""

from dataclasses import dataclass
from functools import cache
from typing import get_args

from keyreel.checkpoints.auxiliary import expected_capabilities
from keyreel.checkpoints.bundled import MODEL, bundled_loras
from keyreel.checkpoints.catalogue import CATALOGUE, find_model
from keyreel.settings import Settings
from keyreel.video.recipes import RecipeChoice, RecipeName, RecipeSettings, resolved


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a request may ask of a model.

    recipes: those that it may choose; None if the model's name does not tell. distilled: the model takes no guidance.
    expands: whether prompts can be expanded. loras: what a request calls the LoRAs that ship with the model.
    """

    recipes: tuple[RecipeChoice, ...] | None
    distilled: bool
    expands: bool
    loras: tuple[str, ...]


def abilities_of(model: str, settings: Settings) -> Abilities:
    """model: the name that a worker reports. The worker is taken to have the same settings as this process."""
    recipes, distilled = _recipes(model, settings.recipe_settings)
    is_demo = model == MODEL  # which also has an expander of its own
    expands = is_demo or bool(settings.expander_url or settings.expander_model)
    return Abilities(recipes, distilled, expands, tuple(bundled_loras()) if is_demo else ())


@cache
def _recipes(model: str, settings: RecipeSettings) -> tuple[tuple[RecipeChoice, ...] | None, bool]:
    if model not in CATALOGUE:
        return None, False
    able = expected_capabilities(find_model(model), settings)
    choices: tuple[RecipeChoice, ...] = (*get_args(RecipeName), "published")
    names = ((choice, resolved(choice, able.published)) for choice in choices)
    return tuple(choice for choice, name in names if name and able.obstacle(name) is None), able.distilled
