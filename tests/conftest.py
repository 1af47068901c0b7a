"""Fixtures for all tests: isolated settings, databases, and tiny models that are loaded once."""

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from keyreel.video.recipes import RecipeSettings
from tests.store.postgres import SERVER, find_programs, new_database, running_server

# The process that hands out the tests makes no models: without these imports, which take seconds, it starts sooner.
if TYPE_CHECKING:
    from keyreel.engine.models import Model

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if "CI" not in os.environ:  # where hypothesis does that by itself
    settings.load_profile("busy machine")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Makes a skipped test fail in CI, where everything that tests need is installed."""
    report = yield
    if "CI" in os.environ and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Marks tests on PostgreSQL as slow, so that the fast ones need no server of it."""
    for item in items:
        on_postgresql = hasattr(item, "callspec") and item.callspec.params.get("server_url") == "postgresql"
        if on_postgresql or "postgres" in item.fixturenames:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def _isolated_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps tests out of the user's folders, and signatures out of videos, so that their bytes can be compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KEYREEL_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        patch.setenv("KEYREEL_PROVENANCE", "false")
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server: the one in KEYREEL_TEST_POSTGRES, or one that the tests start."""
    if SERVER in os.environ:
        yield os.environ[SERVER]
    elif programs := find_programs():
        with running_server(programs) as url:
            yield url
    else:
        pytest.skip(f"PostgreSQL is not installed, and {SERVER} names no server")


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def server_url(request: pytest.FixtureRequest) -> str | None:
    """The URL of a PostgreSQL server. None means SQLite."""
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres"))


@pytest.fixture
def new_url(server_url: str | None, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables, on SQLite and on PostgreSQL."""
    with new_database(server_url, tmp_path) as url:
        yield url


@pytest.fixture
def fleet_url(postgres: str, tmp_path: Path) -> Iterator[str]:
    """The URL of a PostgreSQL database without tables, which several stores may open."""
    with new_database(postgres, tmp_path) as url:
        yield url


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in diffusers' layout."""
    from tests.tiny_checkpoints import tiny_checkpoint

    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def full_checkpoint(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with the upsampler and the distilled LoRA that recipes need."""
    from tests.tiny_checkpoints import tiny_lora, tiny_upsampler

    folder = shutil.copytree(checkpoint, tmp_path_factory.mktemp("full") / "tiny")
    tiny_upsampler(folder / "latent_upsampler")
    tiny_lora(folder / "distilled.safetensors")
    return folder


@pytest.fixture(scope="session")
def full_model(full_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> "Model":
    from keyreel.engine.models import load_model

    recipe_settings = RecipeSettings(distilled_lora=str(full_checkpoint / "distilled.safetensors"))
    return load_model(str(full_checkpoint), "cpu", tmp_path_factory.mktemp("cache"), recipe_settings)


@pytest.fixture(scope="session")
def model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> "Model":
    from keyreel.engine.models import load_model

    return load_model(str(checkpoint), "cpu", tmp_path_factory.mktemp("cache"))
