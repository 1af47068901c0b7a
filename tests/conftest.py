"""One tiny model for all tests of the engine."""

from pathlib import Path

import pytest

from keyreel.engine.models import Model, load_model
from tests.checkpoints import tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(str(checkpoint), "cpu", tmp_path_factory.mktemp("cache"))
