"""Tiny checkpoints that a test may damage."""

import shutil
from pathlib import Path

import pytest

from tests.tiny_checkpoints import single_file, tiny_checkpoint


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("original") / "tiny")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "tiny")


@pytest.fixture
def file(folder: Path) -> Path:
    """A single file with the text encoder beside it."""
    return single_file(folder, folder / "tiny.safetensors")
