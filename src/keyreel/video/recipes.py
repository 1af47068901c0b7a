"""Recipes: how a model is run to generate one video, as plain numbers. Needs no torch.

The numbers are those of Lightricks. `single` is the plain denoising loop. `stg` uses the values of the LTX-Video 0.9.7
release. `multiscale` runs the two passes of `ltxv-13b-0.9.7-dev.yaml` or, for a distilled model, those of
`ltxv-13b-0.9.7-distilled.yaml`.
"""

from dataclasses import dataclass, replace
from typing import Literal, Self

from keyreel.errors import ModelError, RequestError

RecipeName = Literal["single", "stg", "multiscale", "distilled", "distilled-multiscale"]
RecipeChoice = Literal[RecipeName, "published"]
"""What requests and operators may choose. `published`: what the model's makers use, with their number of steps."""
TWO_PASSES: frozenset[RecipeName] = frozenset({"multiscale", "distilled-multiscale"})
DISTILLED: frozenset[RecipeName] = frozenset({"distilled", "distilled-multiscale"})
"""Recipes for a distilled model, or for another model with the LoRA that distils it."""
StgMode = Literal["attention_values", "attention_skip", "transformer_block"]
"""What a perturbed block does: `attention_values` replaces the output of its self-attention by the attention values,
`attention_skip` by the attention's input, and `transformer_block` skips the whole block. Lightricks' fourth mode,
`residual`, has no effect on a video model and is left out."""

DISTILLED_STEPS = 8
"""Noise levels for which Lightricks' distilled models are trained. A pass has no other ones, and so no more steps."""


@dataclass(frozen=True, slots=True)
class Guidance:
    """The guidance of one step.

    scale: of classifier-free guidance. 1 disables it, and with it the forward pass of the negative prompt.
    stg: scale of spatio-temporal guidance. 0 disables it, and with it the perturbed forward pass.
    rescale: how much of the standard deviation that guidance added is removed again, from 0 to 1.
    blocks: indices of the perturbed transformer blocks, in a model of `Recipe.depth` blocks.
    """

    scale: float = 1.0
    stg: float = 0.0
    rescale: float = 0.0
    blocks: tuple[int, ...] = ()

    @property
    def forwards(self) -> int:
        """The number of predictions that the step needs."""
        return 1 + (self.scale > 1) + bool(self.stg)


Schedule = tuple[tuple[float, Guidance], ...]
"""Pairs (sigma, guidance from that sigma on), the noisiest first. A step takes the first entry whose sigma is at most
its own, or else the last."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One denoising pass over a schedule of `steps` steps. It skips some steps at the start and at the end.

    distilled: the schedule has only noise levels for which distilled models are trained.
    """

    steps: int
    guidance: Schedule
    skip_initial: int = 0
    skip_final: int = 0
    distilled: bool = False


@dataclass(frozen=True, slots=True)
class TwoPasses:
    """The steps of both passes, those skipped at the end of the first and those skipped at the start of the second."""

    first: int
    skip_final: int
    second: int
    skip_initial: int

    def scaled(self, steps: int) -> Self:
        """Returns passes of `steps` steps each that skip the same proportions."""
        return replace(
            self,
            first=steps,
            skip_final=scale_skipped(self.skip_final, self.first, steps),
            second=steps,
            skip_initial=scale_skipped(self.skip_initial, self.second, steps),
        )

    def limited(self, steps: int) -> Self:
        """Returns passes of at most `steps` steps each. A shorter pass skips the same proportion."""
        first, second = min(self.first, steps), min(self.second, steps)
        return replace(
            self,
            first=first,
            skip_final=scale_skipped(self.skip_final, self.first, first),
            second=second,
            skip_initial=scale_skipped(self.skip_initial, self.second, second),
        )


DEFAULT_PASSES = TwoPasses(first=30, skip_final=3, second=30, skip_initial=17)
DISTILLED_PASSES = TwoPasses(first=8, skip_final=1, second=8, skip_initial=5)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One pass at the video's size, or a first pass at two thirds of it and a second at twice the size of the first.

    depth: number of blocks in the model to which `Guidance.blocks` refers. Deeper models use the same block indices.
    cfg_star: scale the negative prediction to match the positive one before guidance (CFG*).
    """

    passes: tuple[Pass, ...]
    depth: int = 28
    cfg_star: bool = False


@dataclass(frozen=True, slots=True)
class RecipeSettings:
    """The operator's settings for recipes; see the settings of the same names."""

    recipe: RecipeChoice | None = None
    upsampler: str | None = None
    distilled_lora: str | None = None


RECIPE_DEFAULTS = RecipeSettings()


@dataclass(frozen=True, slots=True)
class Published:
    """How a model's makers run it: the recipe, its steps, and the settings of the same names."""

    recipe: RecipeName = "single"
    steps: int = 30
    stochastic_sampling: bool = False
    tone_map: float = 0.0


UNPUBLISHED = Published()
"""How a model runs whose makers are unknown."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The properties of a model that decide which recipes it can run.

    distilled: trained for few steps without guidance. upsampler, distilled_lora: SHA-256 of these weights, if present.
    published: how its makers run it.
    """

    distilled: bool = False
    upsampler: str | None = None
    distilled_lora: str | None = None
    published: Published = UNPUBLISHED

    def obstacle(self, recipe: RecipeName) -> str | None:
        """Returns why the model cannot run a recipe and what to do about it, or None if it can."""
        if recipe in TWO_PASSES and not self.upsampler:
            return f"Recipe {recipe} needs a latent upsampler, and this model has none: set KEYREEL_UPSAMPLER."
        if recipe in DISTILLED and not (self.distilled or self.distilled_lora):
            return (
                f"Recipe {recipe} needs a distilled model, or a LoRA that distils this one: "
                "load another model or set KEYREEL_DISTILLED_LORA."
            )
        if recipe in ("single", "stg") and self.distilled:
            return f"Recipe {recipe} is not for distilled models: use distilled or multiscale."
        return None

    def used_by(self, recipe: RecipeName) -> dict[str, str]:
        """Returns the hashes of the weights that the recipe uses beside the model itself."""
        upsampler = self.upsampler if recipe in TWO_PASSES else None
        lora = self.distilled_lora if recipe in DISTILLED else None
        return {name: sha256 for name, sha256 in (("upsampler", upsampler), ("distilled_lora", lora)) if sha256}


def resolved(choice: RecipeChoice | None, published: Published) -> RecipeName | None:
    """Returns the recipe that a choice stands for, or None if there is no choice."""
    return published.recipe if choice == "published" else choice


def default_recipe(capabilities: Capabilities, setting: RecipeChoice | None) -> RecipeName:
    """Returns the operator's choice, or else the model's default. Raises ModelError if the model cannot run it."""
    default: RecipeName = "distilled" if capabilities.distilled else "single"
    recipe = resolved(setting, capabilities.published) or default
    if obstacle := capabilities.obstacle(recipe):
        raise ModelError(obstacle)
    return recipe


def choose_recipe(
    requested: RecipeChoice | None, capabilities: Capabilities, setting: RecipeChoice | None
) -> RecipeName:
    """Returns the requested recipe, or else the default. Raises RequestError if the model cannot run the request's."""
    recipe = resolved(requested, capabilities.published)
    if recipe is None:
        return default_recipe(capabilities, setting)
    if obstacle := capabilities.obstacle(recipe):
        raise RequestError.at(("recipe",), obstacle, "feature_not_supported")
    return recipe


def recipe_of(
    name: RecipeName, steps: int, guidance_scale: float, *, distilled: bool, passes: TwoPasses | None = None
) -> Recipe:
    """Returns a recipe of `steps` steps.

    guidance_scale: used by `single` only. passes: the steps of a two-pass recipe; None derives them from `steps`.
    """
    distilled_steps = min(steps, DISTILLED_STEPS)
    match name:
        case "single":
            return Recipe((Pass(steps, _constant(Guidance(guidance_scale))),))
        case "stg":
            return Recipe((Pass(steps, _constant(Guidance(3.0, 1.0, 0.7, (19,)))),))
        case "distilled":
            return Recipe((Pass(distilled_steps, _constant(Guidance()), distilled=True),))
        case "multiscale" if not distilled:
            return _multiscale(passes or DEFAULT_PASSES.scaled(steps))
        case "multiscale" | "distilled-multiscale":
            wanted = passes or DISTILLED_PASSES.scaled(distilled_steps)
            return _multiscale_distilled(wanted.limited(DISTILLED_STEPS))


def scale_skipped(skipped: int, of: int, steps: int) -> int:
    """Scales `skipped` of `of` steps to a pass of `steps` steps. At least one step remains."""
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
    return Recipe(_two(passes, first, _constant(Guidance(1.0, 1.0, 0.0, (27,)))), depth=48, cfg_star=True)


def _multiscale_distilled(passes: TwoPasses) -> Recipe:
    first, second = _two(passes, _constant(Guidance()), _constant(Guidance()))
    return Recipe((replace(first, distilled=True), replace(second, distilled=True)))


def _two(passes: TwoPasses, first: Schedule, second: Schedule) -> tuple[Pass, Pass]:
    return (
        Pass(passes.first, first, skip_final=passes.skip_final),
        Pass(passes.second, second, skip_initial=passes.skip_initial),
    )


def _constant(guidance: Guidance) -> Schedule:
    return ((0.0, guidance),)
