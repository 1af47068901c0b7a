"""Recipes: how a model is run to draw one video, as plain numbers. Needs no torch.

The numbers are Lightricks' own: `single` is the plain loop, `stg` the release of LTX-Video 0.9.7, `multiscale` the
two passes of `ltxv-13b-0.9.7-dev.yaml` or, for a distilled model, of `ltxv-13b-0.9.7-distilled.yaml`.
"""

from dataclasses import dataclass, replace
from typing import Literal, Self

from keyreel.errors import ModelError, RequestError

RecipeName = Literal["single", "stg", "multiscale", "distilled", "distilled-multiscale"]
TWO_PASSES: frozenset[RecipeName] = frozenset({"multiscale", "distilled-multiscale"})
DISTILLED: frozenset[RecipeName] = frozenset({"distilled", "distilled-multiscale"})
"""Recipes for a distilled model, or for another one with the LoRA that makes a distilled one of it."""
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


Schedule = tuple[tuple[float, Guidance], ...]
"""(sigma, what steers from there on), the noisiest first. A step goes by the first entry that lies at or below its own
sigma, or else by the last."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A run down the noise levels of a schedule of `steps` steps, of which some at both ends are left out."""

    steps: int
    guidance: Schedule
    skip_initial: int = 0
    skip_final: int = 0


@dataclass(frozen=True, slots=True)
class TwoPasses:
    """The steps of the first and the second pass, and how many the first leaves out at its end, the second before."""

    first: int
    skip_final: int
    second: int
    skip_initial: int

    def scaled(self, steps: int) -> Self:
        """The same shares of passes of `steps` steps."""
        return replace(
            self,
            first=steps,
            skip_final=part_of(self.skip_final, self.first, steps),
            second=steps,
            skip_initial=part_of(self.skip_initial, self.second, steps),
        )


USUAL_PASSES = TwoPasses(first=30, skip_final=3, second=30, skip_initial=17)
DISTILLED_PASSES = TwoPasses(first=8, skip_final=1, second=8, skip_initial=5)


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
        if recipe in TWO_PASSES and not self.upsampler:
            return f"Recipe {recipe} needs a latent upsampler, and this model has none: set KEYREEL_UPSAMPLER."
        if recipe in DISTILLED and not (self.distilled or self.distilled_lora):
            return (
                f"Recipe {recipe} needs a distilled model or the LoRA that makes one of this: "
                "load another or set KEYREEL_DISTILLED_LORA."
            )
        if recipe in ("single", "stg") and self.distilled:
            return f"Recipe {recipe} is not for distilled models: use distilled or multiscale."
        return None

    def used_by(self, recipe: RecipeName) -> dict[str, str]:
        """The hashes of what has a part in the video beside the model itself."""
        upsampler = self.upsampler if recipe in TWO_PASSES else None
        lora = self.distilled_lora if recipe in DISTILLED else None
        return {name: sha256 for name, sha256 in (("upsampler", upsampler), ("distilled_lora", lora)) if sha256}


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


def recipe_of(
    name: RecipeName, steps: int, guidance_scale: float, *, distilled: bool, passes: TwoPasses | None = None
) -> Recipe:
    """The recipe for a request of so many steps. `guidance_scale`: that of `single`.

    passes: what the request says of two passes; without it they follow from `steps`.
    """
    few = min(steps, DISTILLED_STEPS)
    match name:
        case "single":
            return Recipe((Pass(steps, _always(Guidance(guidance_scale))),))
        case "stg":
            return Recipe((Pass(steps, _always(Guidance(3.0, 1.0, 0.7, (19,)))),))
        case "distilled":
            return Recipe((Pass(few, _always(Guidance())),))
        case "multiscale" if not distilled:
            return _multiscale(passes or USUAL_PASSES.scaled(steps))
        case "multiscale" | "distilled-multiscale":
            return _multiscale_distilled(passes or DISTILLED_PASSES.scaled(few))


def part_of(skipped: int, of: int, steps: int) -> int:
    """As many of `steps` as `skipped` are of `of`. One step is always left."""
    return min(round(steps * skipped / of), steps - 1)


def _multiscale(passes: TwoPasses) -> Recipe:
    first = (
        (0.996, Guidance()),
        (0.9933, Guidance(6.0, 4.0, 0.5, (22, 35, 39))),
        (0.985, Guidance(8.0, 4.0, 0.5, (28,))),
        (0.9767, Guidance(6.0, 4.0, 0.0, (28,))),
        (0.9008, Guidance(1.0, 2.0, 0.0, (28,))),
        (0.618, Guidance(1.0, 1.0, 0.0, (28,))),
    )
    return Recipe(_two(passes, first, _always(Guidance(1.0, 1.0, 0.0, (27,)))), depth=48, cfg_star=True)


def _multiscale_distilled(passes: TwoPasses) -> Recipe:
    return Recipe(_two(passes, _always(Guidance()), _always(Guidance())))


def _two(passes: TwoPasses, first: Schedule, second: Schedule) -> tuple[Pass, Pass]:
    return (
        Pass(passes.first, first, skip_final=passes.skip_final),
        Pass(passes.second, second, skip_initial=passes.skip_initial),
    )


def _always(guidance: Guidance) -> Schedule:
    return ((0.0, guidance),)
