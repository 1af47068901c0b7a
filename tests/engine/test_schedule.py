import pytest
import torch
from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule

from keyreel.engine.schedule import linear_quadratic


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 30, 50])
def test_levels_are_those_of_the_release(steps: int) -> None:
    expected = [*linear_quadratic_schedule(steps).tolist(), 0.0]
    torch.testing.assert_close(torch.tensor(linear_quadratic(steps)), torch.tensor(expected), rtol=0, atol=1e-6)


def test_published_values_of_8_steps() -> None:
    published = (1, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.4219, 0)
    assert linear_quadratic(8) == pytest.approx(published, abs=1e-4)
