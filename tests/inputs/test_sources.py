from pathlib import Path

import pytest

from keyreel.errors import RequestError
from keyreel.fal.schema import Request
from keyreel.inputs.fetch import Fetcher
from keyreel.inputs.sources import fetch_inputs
from keyreel.media.limits import Limits
from keyreel.net.addresses import AddressPolicy
from keyreel.settings import Settings
from keyreel.video.job import InputFile

LIMITS = Limits.from_settings(Settings(max_image_bytes=4))


async def fetch(folder: Path, request: Request) -> dict[tuple[str | int, ...], InputFile]:
    async with Fetcher(folder / "cache", AddressPolicy.everything(), 1, local_base=folder) as fetcher:
        return await fetch_inputs(request, fetcher, LIMITS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.mp4", "c.safetensors"):
        (tmp_path / name).write_bytes(name[:1].encode())
    (tmp_path / "large.png").write_bytes(b"large")
    return tmp_path


async def test_files_are_keyed_by_location_in_the_request(folder: Path) -> None:
    request = Request.model_validate(
        {
            "prompt": "x",
            "images": [{"image_url": "a.png"}],
            "videos": [{"video_url": "b.mp4"}],
            "loras": [{"path": "c.safetensors"}],
        }
    )
    files = await fetch(folder, request)
    assert {loc: file.name for loc, file in files.items()} == {
        ("images", 0, "image_url"): "a.png",
        ("videos", 0, "video_url"): "b.mp4",
        ("loras", 0, "path"): "c.safetensors",
    }


async def test_sources_without_effect_are_not_fetched(folder: Path) -> None:
    request = Request.model_validate(
        {
            "prompt": "x",
            "images": [{"image_url": "missing", "strength": 0}, {"image_url": "a.png"}],
            "videos": [{"video_url": "missing", "strength": 0}],
            "loras": [{"path": "missing", "scale": 0}],
        }
    )
    assert list(await fetch(folder, request)) == [("images", 1, "image_url")]


async def test_all_failed_sources_are_reported_at_once(folder: Path) -> None:
    request = Request.model_validate(
        {
            "prompt": "x",
            "images": [{"image_url": "missing.png"}, {"image_url": "a.png"}, {"image_url": "large.png"}],
            "loras": [{"path": "missing.safetensors"}],
        }
    )
    with pytest.raises(RequestError) as caught:
        await fetch(folder, request)
    assert [(problem.loc, problem.type) for problem in caught.value.problems] == [
        (("images", 0, "image_url"), "file_download_error"),
        (("images", 2, "image_url"), "file_too_large"),
        (("loras", 0, "path"), "file_download_error"),
    ]
