"""Recipes: how a model is run to draw one video, as plain numbers. Needs no torch.

The numbers are Lightricks' own: `single` is the plain loop, `stg` the release of LTX-Video 0.9.7, `multiscale` the
two passes of `ltxv-13b-0.9.7-dev.yaml` or, for a distilled model, of `ltxv-13b-0.9.7-distilled.yaml`.
"""

from dataclasses import dataclass
from typing import Literal

from keyreel.errors import ModelError, RequestError

RecipeName = Literal["single", "stg", "multiscale", "distilled"]
StgMode = Literal["attention_values", "attention_skip", "transformer_block"]
"""What a perturbed block does: pass its values on in place of its self-attention, pass its input on in place of it, or
nothing at all. Lightricks' fourth mode, `residual`, changes nothing in a video model and so is none."""

DISTILLED_STEPS = 8


@dataclass(frozen=True, slots=True)
class Guidance:
    """What steers one step.

    scale: of classifier-free guidance. 1 is none, and no forward of the negative prompt.
    stg: scale of spatio-temporal guidance. 0 is none, and no perturbed forward.
    rescale: how much of the spread that guidance has added is taken back, from 0 to 1.
    blocks: the transformer blocks that are perturbed, of `Recipe.depth` blocks.
    """

    scale: float = 1.0
    stg: float = 0.0
    rescale: float = 0.0
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Pass:
    """A run down the noise levels of a schedule of `steps` steps, of which some at both ends are left out.

    guidance: (sigma, what steers from there on), the noisiest first. A step goes by the first entry that lies at or
    below its own sigma, or else by the last.
    """

    steps: int
    guidance: tuple[tuple[float, Guidance], ...]
    skip_initial: int = 0
    skip_final: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """One pass at the video's size, or a first one at two thirds of it and a second one at twice the first's.

    depth: the number of blocks in the model for which `Guidance.blocks` are counted; deeper models use the same blocks.
    cfg_star: fit the negative prediction to the positive one before it guides (CFG*).
    """

    passes: tuple[Pass, ...]
    depth: int = 28
    cfg_star: bool = False


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator says of recipes: see the settings of the same names."""

    recipe: RecipeName | None = None
    upsampler: str | None = None
    distilled_lora: str | None = None


NO_WISHES = Wishes()


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a loaded model brings along for recipes.

    distilled: it was trained for few steps without guidance. upsampler, distilled_lora: SHA-256 of what lies beside it.
    """

    distilled: bool = False
    upsampler: str | None = None
    distilled_lora: str | None = None

    def obstacle(self, recipe: RecipeName) -> str | None:
        """Why such a model cannot be run by a recipe, and what to do; None when it can."""
        if recipe == "multiscale" and not self.upsampler:
            return "Recipe multiscale needs a latent upsampler, and this model has none: set KEYREEL_UPSAMPLER."
        if recipe == "distilled" and not (self.distilled or self.distilled_lora):
            return (
                "Recipe distilled needs a distilled model or the LoRA that makes one of this: "
                "load another or set KEYREEL_DISTILLED_LORA."
            )
        if recipe in ("single", "stg") and self.distilled:
            return f"Recipe {recipe} is not for distilled models: use distilled or multiscale."
        return None

    def used_by(self, recipe: RecipeName) -> dict[str, str]:
        """The hashes of what has a part in the video beside the model itself."""
        if recipe == "multiscale" and self.upsampler:
            return {"upsampler": self.upsampler}
        if recipe == "distilled" and self.distilled_lora:
            return {"distilled_lora": self.distilled_lora}
        return {}


def default_recipe(abilities: Abilities, setting: RecipeName | None) -> RecipeName:
    """The operator's choice, or else what suits the model. Raises ModelError when the model cannot do it."""
    recipe: RecipeName = setting or ("distilled" if abilities.distilled else "single")
    if obstacle := abilities.obstacle(recipe):
        raise ModelError(obstacle)
    return recipe


def choose_recipe(asked: RecipeName | None, abilities: Abilities, setting: RecipeName | None) -> RecipeName:
    """The recipe of a request that asks for `asked`. Raises RequestError when the model cannot do that."""
    if asked is None:
        return default_recipe(abilities, setting)
    if obstacle := abilities.obstacle(asked):
        raise RequestError.at(("recipe",), obstacle, "feature_not_supported")
    return asked


def recipe_of(name: RecipeName, steps: int, guidance_scale: float, *, distilled: bool) -> Recipe:
    """The recipe for a request of so many steps. `guidance_scale`: that of `single`."""
    match name:
        case "single":
            return Recipe((Pass(steps, _always(Guidance(guidance_scale))),))
        case "stg":
            return Recipe((Pass(steps, _always(Guidance(3.0, 1.0, 0.7, (19,)))),))
        case "distilled":
            return Recipe((Pass(min(steps, DISTILLED_STEPS), _always(Guidance())),))
        case "multiscale" if distilled:
            return _multiscale_distilled(min(steps, DISTILLED_STEPS))
        case "multiscale":
            return _multiscale(steps)


def _multiscale(steps: int) -> Recipe:
    """Of 30 steps, the first pass leaves out the last 3 and the second the first 17."""
    first = (
        (0.996, Guidance()),
        (0.9933, Guidance(6.0, 4.0, 0.5, (22, 35, 39))),
        (0.985, Guidance(8.0, 4.0, 0.5, (28,))),
        (0.9767, Guidance(6.0, 4.0, 0.0, (28,))),
        (0.9008, Guidance(1.0, 2.0, 0.0, (28,))),
        (0.618, Guidance(1.0, 1.0, 0.0, (28,))),
    )
    second = _always(Guidance(1.0, 1.0, 0.0, (27,)))
    passes = Pass(steps, first, skip_final=_part(steps, 3, 30)), Pass(steps, second, _part(steps, 17, 30))
    return Recipe(passes, depth=48, cfg_star=True)


def _multiscale_distilled(steps: int) -> Recipe:
    """Of 8 steps, the first pass leaves out the last and the second the first 5."""
    unguided = _always(Guidance())
    return Recipe((Pass(steps, unguided, skip_final=_part(steps, 1, 8)), Pass(steps, unguided, _part(steps, 5, 8))))


def _always(guidance: Guidance) -> tuple[tuple[float, Guidance], ...]:
    return ((0.0, guidance),)


def _part(steps: int, skipped: int, of: int) -> int:
    """As many of `steps` as `skipped` are of `of`. One step is always left."""
    return min(round(steps * skipped / of), steps - 1)
