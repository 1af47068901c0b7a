from pathlib import Path

import pytest
from pydantic import TypeAdapter

from keyreel.video.canvas import Size
from keyreel.video.job import AdapterFile, InputFile, Job, Sampling
from keyreel.video.recipes import TwoPasses

LORA = AdapterFile(Path("/cache/a"), "style.safetensors", "a" * 64, -0.5, ("loras", 0, "path"))
JOB = Job(
    prompt="a “circle”",
    negative_prompt="",
    size=Size(480, 480),
    frames=9,
    steps=2,
    frame_rate=25,
    seed=-(2**63),
    adapters=(LORA,),
    sampling=Sampling("multiscale", tone_map=0.6),
    passes=TwoPasses(4, 1, 5, 2),
)


@pytest.mark.parametrize("value", [InputFile(Path("/cache/a"), "a" * 64, "a.png"), LORA, JOB.sampling, JOB.passes])
def test_values_survive_json(value: object) -> None:
    """Worker processes exchange these values as JSON."""
    adapter = TypeAdapter(type(value))
    assert adapter.validate_json(adapter.dump_json(value)) == value


def test_job_is_immutable() -> None:
    with pytest.raises(AttributeError):
        JOB.seed = 3  # type: ignore[misc]
