from pathlib import Path

import pytest

from keyreel.canvas import Grid, Size
from keyreel.errors import Problem
from keyreel.events import Notice, Stage, Step
from keyreel.expansion import LocalModel
from keyreel.fetch import Fetched
from keyreel.guard import GuardPlan
from keyreel.job import AdapterFile, Job
from keyreel.prepare import Prepared
from keyreel.recipes import Abilities, Wishes
from keyreel.schema import ImageCondition, Request
from keyreel.worker.messages import (
    LENGTH,
    MAX_LENGTH,
    Check,
    Checked,
    Expand,
    Expanded,
    Failed,
    Finished,
    Guarding,
    Load,
    LoadFailed,
    LoadGuard,
    Message,
    Pin,
    Prepare,
    Ready,
    Refused,
    Run,
    Spooled,
    Stop,
    Stopped,
    body_length,
    decode,
    encode,
)

LORA = AdapterFile(Path("/cache/lora"), "lora.safetensors", "5" * 64, -0.5, ("loras", 0, "path"))
JOB = Job("a “circle”", "", Size(480, 480), 9, 2, 25, -(2**63), adapters=(LORA,))
SPOOLED = Spooled(Prepared(JOB, {"images.0": "a" * 64}), (Pin(0, 1.0), Pin(8, 0.1)))
IMAGE = ImageCondition(image_url="fetched:", strength=0.3)
MESSAGES: tuple[Message, ...] = (
    Load("demo", None, Path("/cache"), Wishes("stg", "owner/upsampler", "/lora.safetensors")),
    Ready("demo", "f" * 64, "cuda:0", Grid(32, 8), {"proj_in": (4, 3)}, Abilities(upsampler="a" * 64)),
    LoadFailed("no"),
    SPOOLED,
    Run("id-1", SPOOLED, Path("/spool"), Path("/spool/video.mp4"), {"comment": "ü"}),
    Stop("id-1"),
    Stage("denoise", 30),
    Step(3),
    Notice("cut"),
    Finished(12),
    Stopped(),
    Refused((Problem(("images", 0), "too large", "file_too_large", {"max_size": 3}),)),
    Failed("out of memory", poisoned=True),
    LoadGuard(GuardPlan(LocalModel("owner/llama", None, 60.0), "nudenet", "FACE_MALE", None, "", 16, "cpu")),
    Guarding(),
    Expand("a “circle”", -(2**63), Path("/spool/0.npy")),
    Expanded("a “circle” moves"),
    Check(("a", "b"), ((("images", 0, "image_url"), Path("/spool/0.npy")),), Path("/spool/video.mp4")),
    Checked(),
    Prepare(
        Request(prompt="p", images=(IMAGE,)),
        ((("images", 0, "image_url"), Fetched(Path("/cache/x"), "a", "x.png")),),
        Grid(32, 8),
        {},
        {"max_tokens": 5},
        "multiscale",
        Path("/spool"),
    ),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_what_is_sent_arrives(message: Message) -> None:
    frame = encode(message)
    head, body = frame[: LENGTH.size], frame[LENGTH.size :]
    assert body_length(head) == len(body)
    assert decode(body) == message


@pytest.mark.parametrize(
    "body", [b"", b"os.system {}", b"\xff {}", b"Step {}", b'Step {"done": "x"}', b'Step {"done":', b"\x80\x04."]
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(body)


def test_no_message_fills_the_memory() -> None:
    with pytest.raises(ValueError, match="bytes"):
        body_length(LENGTH.pack(MAX_LENGTH + 1))
