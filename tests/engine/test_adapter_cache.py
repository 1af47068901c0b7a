from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from keyreel.checkpoints.hub import content_sha256
from keyreel.engine import adapter_cache
from keyreel.engine.adapter_cache import AdapterCache
from keyreel.engine.models import Model
from keyreel.engine.pipeline import run
from keyreel.errors import RequestError
from keyreel.video.job import AdapterFile
from tests.engine.conftest import JOB, pixels
from tests.tiny_checkpoints import tiny_lora

CPU = torch.device("cpu")


def described(path: Path, scale: float = 1.0) -> AdapterFile:
    return AdapterFile(path, path.name, content_sha256(path), scale, ("loras", 0, "path"))


@pytest.fixture
def lora(tmp_path: Path) -> AdapterFile:
    return described(tiny_lora(tmp_path / "a.safetensors"))


@pytest.fixture
def fresh(model: Model) -> Model:
    """The model with nothing cached."""
    return replace(model, adapters=AdapterCache(CPU))


def test_a_lora_is_read_once(fresh: Model, lora: AdapterFile) -> None:
    first = fresh.adapters.read(lora, fresh.transformer)
    lora.path.unlink()
    again = fresh.adapters.read(replace(lora, name="b", scale=-0.5), fresh.transformer)
    assert (again.name, again.scale) == ("b", -0.5)
    assert again.branches is fresh.adapters.read(lora, fresh.transformer).branches
    assert first.branches.keys() == again.branches.keys()


def test_a_cached_lora_makes_the_same_video(fresh: Model, lora: AdapterFile, tmp_path: Path) -> None:
    styled = replace(JOB, adapters=(lora,))
    first = pixels(run(fresh, styled))
    other = described(tiny_lora(tmp_path / "b.safetensors", seed=10))
    assert not np.array_equal(pixels(run(fresh, replace(JOB, adapters=(other, lora)))), first)
    assert np.array_equal(pixels(run(fresh, styled)), first)
    with lora.path.open("r+b") as file:  # the mapped tensors of the file would change with it
        file.seek(-100, 2)
        file.write(bytes(100))
    assert np.array_equal(pixels(run(fresh, styled)), first)


@pytest.mark.usefixtures("no_pinned_memory")
def test_a_lora_is_kept_where_no_more_memory_can_be_pinned(fresh: Model, lora: AdapterFile) -> None:
    expected = fresh.adapters.read(lora, fresh.transformer).branches
    cache = AdapterCache(torch.device("cuda:0"))
    branches = cache.read(lora, fresh.transformer).branches
    assert cache.read(lora, fresh.transformer).branches is branches
    for module, branch in expected.items():
        assert torch.equal(branches[module].a, branch.a)
        assert torch.equal(branches[module].b, branch.b)


def test_a_file_that_was_changed_after_it_was_fetched_is_not_kept(
    fresh: Model, lora: AdapterFile, tmp_path: Path
) -> None:
    tiny_lora(lora.path, seed=10)
    changed = fresh.adapters.read(lora, fresh.transformer)
    restored = fresh.adapters.read(replace(lora, path=tiny_lora(tmp_path / "b.safetensors")), fresh.transformer)
    for module, branch in changed.branches.items():
        assert not torch.equal(branch.a, restored.branches[module].a)


def test_loras_that_were_not_used_for_longest_are_read_again(
    fresh: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [described(tiny_lora(tmp_path / f"{seed}.safetensors", seed=seed)) for seed in range(3)]
    monkeypatch.setattr(adapter_cache, "MAX_BYTES", 2 * 4 * 4 * 64)  # two LoRAs of rank 4, fp32
    cache = AdapterCache(CPU)
    for file in files:
        cache.read(file, fresh.transformer)
        file.path.unlink()
    for file in files[1:]:
        cache.read(file, fresh.transformer)
    with pytest.raises(FileNotFoundError):
        cache.read(files[0], fresh.transformer)


def test_a_lora_that_does_not_fit_is_refused_each_time(fresh: Model, tmp_path: Path) -> None:
    wrong = described(tiny_lora(tmp_path / "wrong.safetensors", width=16))
    for _ in range(2):
        with pytest.raises(RequestError):
            fresh.adapters.read(wrong, fresh.transformer)
