from pathlib import Path

import pytest

from keyreel.errors import Problem
from keyreel.fal.schema import ImageCondition, Request
from keyreel.media.limits import Limits
from keyreel.safety.expansion import LocalModel
from keyreel.safety.plan import GuardPlan
from keyreel.settings import Settings
from keyreel.video.canvas import Grid, Size
from keyreel.video.events import Notice, Stage, Step
from keyreel.video.job import AdapterFile, InputFile, Job, Prepared, Sampling
from keyreel.video.recipes import Capabilities, RecipeSettings
from keyreel.worker.messages import (
    LENGTH,
    MAX_LENGTH,
    Check,
    Checked,
    Checkpointed,
    Decode,
    Drawn,
    Expand,
    Expanded,
    Failed,
    Finished,
    GuardReady,
    Load,
    LoadFailed,
    LoadGuard,
    Message,
    Pin,
    Preload,
    Ready,
    Refused,
    Run,
    Spooled,
    Stop,
    Stopped,
    Unwritten,
    body_length,
    decode,
    encode,
)

LORA = AdapterFile(Path("/cache/lora"), "lora.safetensors", "5" * 64, -0.5, ("loras", 0, "path"))
JOB = Job("a “circle”", "", Size(480, 480), 9, 2, 25, -(2**63), adapters=(LORA,))
SPOOLED = Spooled(Prepared(JOB, {"images.0": "a" * 64}), (Pin(0, 1.0), Pin(8, 0.1)))
IMAGE = ImageCondition(image_url="", strength=0.3)
MESSAGES: tuple[Message, ...] = (
    Load("demo", None, Path("/cache"), RecipeSettings("stg", "owner/upsampler", "/lora.safetensors")),
    Ready(
        "demo", "f" * 64, "cuda:0", Grid(32, 8), {"proj_in": (4, 3)}, Capabilities(upsampler="a" * 64), {"torch": "2"}
    ),
    LoadFailed("no"),
    SPOOLED,
    Run("id-1", SPOOLED, Path("/spool"), Path("/spool/video.mp4"), {"comment": "ü"}, 5.0, {"ranks": "1"}, Path("/x")),
    Preload((LORA,)),
    Stop("id-1", keep=True),
    Stage("denoise", 30, done=12),
    Checkpointed(Path("/spool/checkpoint-1.safetensors")),
    Step(3),
    Notice("cut"),
    Drawn("id-1"),
    Finished("id-1", 12),
    Unwritten("id-1", "the disk is full"),
    Stopped("id-1"),
    Refused((Problem(("images", 0), "too large", "file_too_large", {"max_size": 3}),)),
    Failed("out of memory", poisoned=True),
    LoadGuard(GuardPlan(LocalModel("owner/llama", None, 60.0), "nudenet", "FACE_MALE", None, "", 16, "cpu")),
    GuardReady(),
    Expand("a “circle”", -(2**63), Path("/spool/0.npy")),
    Expanded("a “circle” moves"),
    Check(("a", "b"), ((("images", 0, "image_url"), Path("/spool/0.npy")),), Path("/spool/video.mp4")),
    Checked(),
    Decode(
        Request(prompt="p", images=(IMAGE,)),
        ((("images", 0, "image_url"), InputFile(Path("/cache/x"), "a", "x.png")),),
        Grid(32, 8),
        {},
        Limits.from_settings(Settings(max_tokens=5)),
        Sampling("multiscale"),
        Path("/spool"),
    ),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_decoded_message_equals_the_encoded_one(message: Message) -> None:
    frame = encode(message)
    header, body = frame[: LENGTH.size], frame[LENGTH.size :]
    assert body_length(header) == len(body)
    assert decode(body) == message


@pytest.mark.parametrize(
    "body", [b"", b"os.system {}", b"\xff {}", b"Step {}", b'Step {"done": "x"}', b'Step {"done":', b"\x80\x04."]
)
def test_malformed_messages_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(body)


def test_too_long_messages_are_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        body_length(LENGTH.pack(MAX_LENGTH + 1))
