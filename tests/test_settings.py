from pathlib import Path

import pytest
from typer.testing import CliRunner

from keyreel.cli import app
from keyreel.errors import KeyreelError
from keyreel.settings import Settings
from keyreel.video.job import Sampling
from keyreel.video.recipes import Published, RecipeSettings


def test_environment_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYREEL_MAX_TOKENS", "7")
    monkeypatch.setenv("KEYREEL_DATA_DIR", "/srv/keyreel")
    monkeypatch.setenv("KEYREEL_PUBLIC_URL", "https://example.com/studio/")
    settings = Settings()
    assert (settings.max_tokens, settings.data_dir) == (7, Path("/srv/keyreel"))
    assert settings.public_url == "https://example.com/studio"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLIC_URL", "video.example.com"),
        ("EXPANDER_URL", "host:8000/v1"),
        ("MAX_TOKENS", "0"),
        ("GUIDANCE_SCALE", "0.5"),
        ("ADAIN", "1.1"),
        ("RECIPE", "fast"),
        ("FETCH_TIMEOUT", "soon"),
    ],
)
def test_values_out_of_bounds_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"KEYREEL_{name}", value)
    with pytest.raises(KeyreelError, match=f"^KEYREEL_{name}: .+\\.$"):
        Settings()


@pytest.mark.parametrize(
    "command", [["serve", "--no-worker"], ["worker"], ["migrate"], ["keys", "list"], ["audit"], ["repair"]]
)
def test_a_wrong_setting_is_an_error_of_one_line(command: list[str]) -> None:
    result = CliRunner().invoke(app, command, env={"KEYREEL_GRACE": "soon", "KEYREEL_SECRET": "short"})
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "KEYREEL_SECRET: String should have at least 16 characters.",
        "KEYREEL_GRACE: Input should be a valid number, unable to parse string as a number.",
    ]


def test_secrets_are_not_printed() -> None:
    assert "SECRET" not in repr(Settings(admin_key="id:SECRET", expander_key="SECRET"))


def test_defaults_of_sampling_are_those_of_the_engine() -> None:
    assert Settings().sampling("single") == Sampling()


def test_what_the_operator_leaves_open_is_as_the_makers_published_it() -> None:
    published = Published("distilled", 8, stochastic_sampling=True, tone_map=0.6)
    assert Settings().sampling("distilled", published) == Sampling("distilled", stochastic_sampling=True, tone_map=0.6)
    own = Settings(stochastic_sampling=False, tone_map=0.0)
    assert own.sampling("distilled", published) == Sampling("distilled")


def test_settings_apply_to_sampling_by_name() -> None:
    changed = {
        "guidance_scale": 4.0,
        "stg_mode": "attention_skip",
        "stochastic_sampling": True,
        "adain": 0.5,
        "tone_map": 0.6,
        "condition_noise_scale": 0.0,
        "decode_timestep": 0.1,
        "decode_noise_scale": 0.2,
    }
    sampling = Settings.model_validate(changed).sampling("stg")
    assert {name: getattr(sampling, name) for name in Sampling.__slots__} == changed | {"recipe": "stg"}


def test_recipe_settings() -> None:
    settings = Settings(recipe="stg", upsampler="owner/name", distilled_lora="lora.safetensors")
    assert settings.recipe_settings == RecipeSettings("stg", "owner/name", "lora.safetensors")
