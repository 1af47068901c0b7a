"""`keyreel serve --model FILE` with every kind of prompt expander and safety checker, as fal's client sees it.

The expanders and checkers are small real models, a chat server and a face detector.
"""

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from PIL import Image

from keyreel.safety.expansion import CAPTION_PROMPT
from keyreel.safety.moderation import UNCHECKED
from tests.safety.chat_server import Chat, chat, completion
from tests.server.live import ENDPOINT
from tests.server.served import Served, download, served
from tests.server.test_recipes import SMALL, data_uri, model
from tests.small_models import FORBIDDEN, captioner, language_model, picture_classifier, text_classifier
from tests.worker.faces import FACES, PORTRAIT

__all__ = ["chat", "model"]

QUICK = SMALL | {"number_of_steps": 1, "recipe": "single"}
CHECKED = QUICK | {"enable_safety_checker": True}

pytestmark = pytest.mark.slow


def grey(level: int) -> str:
    content = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), level, np.uint8)).save(content, "PNG")
    return data_uri(content.getvalue(), "image/png")


@pytest.fixture(scope="module")
def local(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with local models of every kind. The seeds matter: some random captioners write nothing of grey(90)."""
    folder = tmp_path_factory.mktemp("guarded")
    settings = {
        "expander_model": language_model(folder / "language", seed=2),
        "expander_vision_model": captioner(folder / "captioner", seed=2),
        "image_checker": picture_classifier(folder / "pictures", safe_below=0.95),
        "text_checker": text_classifier(folder / "texts"),
        "text_checker_labels": "toxic",
        "provenance": "true",
    }
    with served(model, folder / "data", **{name: str(value) for name, value in settings.items()}) as server:
        yield server


def test_local_models_expand_prompts(local: Served) -> None:
    arguments = QUICK | {"expand_prompt": True}
    first, second = local.make(ENDPOINT, arguments), local.make(ENDPOINT, arguments)
    assert first["prompt"] == second["prompt"] != QUICK["prompt"]
    with_picture = local.make(ENDPOINT, arguments | {"images": [{"image_url": grey(90)}]})
    assert with_picture["prompt"] != first["prompt"]


def test_the_expanded_prompt_gives_the_same_video(local: Served) -> None:
    expanded = local.make(ENDPOINT, QUICK | {"expand_prompt": True})
    again = local.make(ENDPOINT, QUICK | {"prompt": expanded["prompt"]})
    assert again["video"]["file_size"] > 0
    assert frames(download(again)) == frames(download(expanded))


def frames(video: bytes) -> bytes:
    """Returns the end of the file, from the type of the `mdat` box with the encoded frames."""
    return video[video.index(b"mdat") :]


@pytest.mark.parametrize(
    ("changes", "loc"),
    [
        ({"prompt": f"a {FORBIDDEN} circle"}, ["body", "prompt"]),
        ({"images": [{"image_url": grey(90)}, {"image_url": grey(255), "start_frame_number": 8}]}, ["images", 1]),
    ],
    ids=["prompt", "picture"],
)
def test_forbidden_content_is_refused(local: Served, changes: dict[str, Any], loc: list[str | int]) -> None:
    status, problems = local.refusal(ENDPOINT, CHECKED | changes)
    assert (status, problems[0]["type"]) == (422, "content_policy_violation")
    assert str(loc)[1:-1] in str(problems[0]["loc"])


def test_allowed_content_is_checked_and_signed(local: Served) -> None:
    assert local.log(ENDPOINT, CHECKED).count("Checking the content") == 2
    video = local.video(ENDPOINT, CHECKED | {"images": [{"image_url": grey(90)}]})
    with c2pa.Reader("video/mp4", io.BytesIO(video)) as reader:
        assert reader.get_validation_state() == "Valid"


async def test_a_chat_server_expands_and_a_face_detector_checks(model: Path, tmp_path: Path, chat: Chat) -> None:
    chat.reply = lambda order: completion(
        "a woman in orange" if CAPTION_PROMPT in str(order) else f"{order['messages'][1]['content']} at night"
    )
    settings = {"expander_url": chat.url, "expander_model": "llama", "expander_vision_model": "llava", **FACES}

    def run_client() -> None:
        with served(model, tmp_path, **settings) as server:
            portrait = {"images": [{"image_url": PORTRAIT}]}
            output = server.make(ENDPOINT, QUICK | portrait | {"expand_prompt": True})
            assert output["prompt"] == "a red circle The first frame shows: a woman in orange at night"
            status, problems = server.refusal(ENDPOINT, CHECKED | portrait)
            assert (status, problems[0]["loc"]) == (422, ["body", "images", 0, "image_url"])
            server.make(ENDPOINT, CHECKED)

    await asyncio.to_thread(run_client)
    assert [order["model"] for order in chat.bodies] == ["llava", "llama"]
    assert len(list((tmp_path / "files").rglob("*.mp4"))) == 2


def test_without_a_checker_each_log_has_a_warning(model: Path, tmp_path: Path) -> None:
    with served(model, tmp_path, image_checker="off") as server:
        assert all(server.log(ENDPOINT, CHECKED).count(UNCHECKED) == 1 for _ in range(2))
