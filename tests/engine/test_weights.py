from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from keyreel.engine.weights import fill, first_keys, mapped
from keyreel.errors import ModelError

SOURCE = Path("linear.safetensors")


class WithTable(nn.Linear):
    """A layer with a table that files do not hold, like those of rotary embeddings."""

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.register_buffer("table", torch.ones(2), persistent=False)


@pytest.fixture
def empty() -> nn.Linear:
    """A layer without weights."""
    with torch.device("meta"):
        return nn.Linear(3, 2)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return {"weight": torch.arange(6.0).view(2, 3), "bias": torch.tensor([10.0, 20.0])}


def test_several_files_are_mapped_in_their_own_types(tmp_path: Path) -> None:
    paths = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    save_file({"a": torch.tensor([1.5, 2.5])}, paths[0])
    save_file({"b": torch.tensor([3.5], dtype=torch.bfloat16)}, paths[1])
    weights = mapped(paths)
    assert {key: tensor.dtype for key, tensor in weights.items()} == {"a": torch.float32, "b": torch.bfloat16}
    assert {key: tensor.tolist() for key, tensor in weights.items()} == {"a": [1.5, 2.5], "b": [3.5]}
    maps = Path("/proc/self/maps").read_text()
    assert all(str(path) in maps for path in paths)


def test_a_filled_module_computes_with_the_given_weights(empty: nn.Linear, weights: dict[str, torch.Tensor]) -> None:
    fill(empty, weights, SOURCE)
    assert empty(torch.tensor([1.0, 0.0, 1.0])).tolist() == [12.0, 28.0]
    assert not empty.training
    assert not any(weight.requires_grad for weight in empty.parameters())


def test_weights_are_not_copied(empty: nn.Linear, weights: dict[str, torch.Tensor]) -> None:
    """A copy of a mapped file would be read into memory at once."""
    fill(empty, weights, SOURCE)
    assert empty.weight.data_ptr() == weights["weight"].data_ptr()


def test_a_missing_weight_is_named(empty: nn.Linear, weights: dict[str, torch.Tensor]) -> None:
    del weights["bias"]
    with pytest.raises(ModelError, match=r"^linear.safetensors lacks weights of Linear: bias\.$"):
        fill(empty, weights, SOURCE)


def test_an_unknown_weight_is_named(empty: nn.Linear, weights: dict[str, torch.Tensor]) -> None:
    weights["extra"] = torch.ones(1)
    with pytest.raises(ModelError, match=r"^linear.safetensors holds weights that Linear does not have: extra\.$"):
        fill(empty, weights, SOURCE)


def test_a_weight_of_another_shape_is_named(empty: nn.Linear, weights: dict[str, torch.Tensor]) -> None:
    weights["bias"] = torch.ones(1, 2)
    with pytest.raises(ModelError, match=r"^linear.safetensors holds weights of other shapes .*: bias\.$"):
        fill(empty, weights, SOURCE)


def test_a_refused_module_stays_empty(empty: nn.Linear, weights: dict[str, torch.Tensor]) -> None:
    weights["bias"] = torch.ones(3)
    with pytest.raises(ModelError):
        fill(empty, weights, SOURCE)
    assert empty.weight.is_meta


def test_a_module_with_values_that_no_file_holds_is_refused(weights: dict[str, torch.Tensor]) -> None:
    with torch.device("meta"):
        module = WithTable()
    with pytest.raises(ModelError, match="WithTable has weights that no file provides"):
        fill(module, weights, SOURCE)


@pytest.mark.parametrize(
    ("keys", "text"), [("ba", "a, b"), ("edcba", "a, b, c, d, e"), ("gfedcba", "a, b, c, d, e and 2 more")]
)
def test_only_the_first_names_are_listed(keys: str, text: str) -> None:
    assert first_keys(set(keys)) == text
