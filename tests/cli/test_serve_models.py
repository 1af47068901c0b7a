"""How `keyreel serve` shares its devices among several models."""

import pytest

from keyreel.cli.serve import workers_of
from keyreel.errors import KeyreelError
from keyreel.server.process import Workers


def test_a_single_model_has_all_devices() -> None:
    assert workers_of(("demo",), ("cuda:0", "cuda:1"), ()) == (Workers("demo", ("cuda:0", "cuda:1")),)


def test_several_models_have_a_device_each_or_share_one() -> None:
    models = ("a", "b")
    assert workers_of(models, ("cuda:0", "cuda:1"), models) == (
        Workers("a", ("cuda:0",)),
        Workers("b", ("cuda:1",), pool="b"),
    )
    assert workers_of(models, (None,), models) == (Workers("a", (None,)), Workers("b", (None,), pool="b"))


def test_a_server_of_a_fleet_serves_its_part_of_the_models() -> None:
    assert workers_of(("b",), ("cpu",), ("a", "b")) == (Workers("b", ("cpu",), pool="b"),)


@pytest.mark.parametrize(
    ("models", "devices", "message"),
    [
        (("a", "b", "c"), ("cuda:0", "cuda:1"), "There are 3 --model and 2 --device: give one, or one per model."),
        (("a", "a"), ("cpu",), "--model names a model twice. Name it once, with a --device for each of its workers."),
        (("c",), ("cpu",), "KEYREEL_MODELS does not name the model c. It names a, b."),
    ],
)
def test_what_does_not_fit_is_said(models: tuple[str, ...], devices: tuple[str, ...], message: str) -> None:
    with pytest.raises(KeyreelError) as caught:
        workers_of(models, devices, ("a", "b"))
    assert str(caught.value) == message
