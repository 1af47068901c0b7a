"""One tiny model for all tests of the engine."""

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from keyreel.engine.models import Model, load_model
from keyreel.recipes import Wishes
from tests.checkpoints import tiny_checkpoint, tiny_lora, tiny_upsampler


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI everything that tests need is there, so a skipped one is a failure."""
    report = yield
    if "CI" in os.environ and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session", autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing goes into the user's own folders; and videos carry no signatures, so that their bytes can be compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KEYREEL_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        patch.setenv("KEYREEL_PROVENANCE", "false")
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def full_checkpoint(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With all that recipes need beside the model."""
    folder = shutil.copytree(checkpoint, tmp_path_factory.mktemp("full") / "tiny")
    tiny_upsampler(folder / "latent_upsampler")
    tiny_lora(folder / "distilled.safetensors")
    return folder


@pytest.fixture(scope="session")
def full_model(full_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    wishes = Wishes(distilled_lora=str(full_checkpoint / "distilled.safetensors"))
    return load_model(str(full_checkpoint), "cpu", tmp_path_factory.mktemp("cache"), wishes)


@pytest.fixture(scope="session")
def model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(str(checkpoint), "cpu", tmp_path_factory.mktemp("cache"))
