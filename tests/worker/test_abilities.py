"""What the page may offer for a model."""

import pytest

from keyreel.settings import Settings
from keyreel.worker.abilities import abilities_of


@pytest.mark.parametrize(
    ("model", "options", "recipes"),
    [
        ("demo", {}, ("single", "stg", "published")),
        ("demo", {"upsampler": "a/b"}, ("single", "stg", "multiscale", "published")),
        ("ltxv-13b-0.9.7-dev", {}, ("single", "stg", "multiscale", "published")),
        (
            "ltxv-13b-0.9.7-dev",
            {"distilled_lora": "a/b/c.safetensors"},
            ("single", "stg", "multiscale", "distilled", "distilled-multiscale", "published"),
        ),
        ("ltxv-2b-0.9.6-distilled", {}, ("distilled", "published")),
        ("my-own-model", {}, None),
    ],
)
def test_the_recipes_are_those_that_a_request_may_choose(
    model: str, options: dict[str, str], recipes: tuple[str, ...] | None
) -> None:
    assert abilities_of(model, Settings(**options)).recipes == recipes  # type: ignore[arg-type]


def test_expansion_needs_an_expander_and_shipped_loras_the_demo_model() -> None:
    settings = Settings()
    demo, other = abilities_of("demo", settings), abilities_of("ltxv-2b-0.9.6-distilled", settings)
    assert (demo.expands, demo.distilled, bool(demo.loras)) == (True, False, True)
    assert (other.expands, other.distilled, bool(other.loras)) == (False, True, False)
    assert abilities_of("other", Settings(expander_model="a/b")).expands
