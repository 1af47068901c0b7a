"""From an empty server to a finished video: the real page, server, workers and demo model. Only the hub is a fake."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copy

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from keyreel.media.images import read_image
from keyreel.media.limits import Limits
from keyreel.media.mp4 import read_metadata
from keyreel.media.samples import sample_frames
from keyreel.settings import Settings
from keyreel.video.canvas import Size
from tests.fake_hub import MAIN, FakeHub
from tests.server.served import Served, served
from tests.web.browser import (
    ROOT,
    TIMEOUT,
    add_files,
    compose,
    generate,
    opened,
    serious_issues,
    set_number,
    show_code,
    viewer,
    watched,
)

SUNRISE = ROOT / "examples" / "sunrise.png"
NIGHT = ROOT / "examples" / "night.png"
NEON = ROOT / "src" / "keyreel" / "demo" / "loras" / "neon.safetensors"
FRAMES = 17
VIDEO_TIMEOUT = 8 * TIMEOUT
"""Milliseconds in which a busy machine makes a video."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A new server, and a hub with two LoRAs in one repository."""
    folder = tmp_path_factory.mktemp("whole")
    looks = folder / "looks"
    looks.mkdir()
    for name in ("neon.safetensors", "dusk.safetensors"):
        copy(NEON, looks / name)
    with FakeHub({"studio/looks": {MAIN: looks}}).served() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(folder / "hub"))
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        with served(Path("demo"), folder / "data") as server:
            yield server


@pytest.fixture
def visitor(browser: Browser) -> Iterator[BrowserContext]:
    with watched(browser) as context:
        yield context


@pytest.fixture
def page(visitor: BrowserContext, whole: Served) -> Page:
    return opened(visitor, f"{whole.url}/#key={whole.key}")


def test_a_preview_is_shown_and_the_request_can_be_cancelled(page: Page) -> None:
    compose(page, "a big white moon over the sea")
    set_number(page, "Steps", 50)
    generate(page)
    expect(viewer(page).get_by_role("img", name="Preview")).to_be_visible(timeout=VIDEO_TIMEOUT)
    assert serious_issues(page) == []
    viewer(page).get_by_role("button", name="Cancel").click()
    expect(viewer(page).get_by_role("heading", name="Cancelled")).to_be_visible()


def test_a_video_from_two_pictures_and_a_lora(page: Page, tmp_path: Path) -> None:
    compose_small(page)
    generate(page)
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible(timeout=VIDEO_TIMEOUT)
    with page.expect_download() as download:
        viewer(page).get_by_role("link", name="Download").click()
    path = tmp_path / "video.mp4"
    download.value.save_as(path)
    assert re.fullmatch(r"keyreel-\d+\.mp4", download.value.suggested_filename)
    first, *_, last = sample_frames(path, FRAMES)
    assert first.shape == (480, 480, 3)
    assert likeness(first, SUNRISE) > 0.95
    assert likeness(first, SUNRISE) > likeness(first, NIGHT) + 0.3
    assert likeness(last, NIGHT) > likeness(last, SUNRISE) + 0.3
    comment = read_metadata(path)["comment"]
    assert "dusk.safetensors" in comment
    # The page shows the seed, too, and still shows it after a reload.
    seed = viewer(page).locator("dd").first.inner_text()
    assert seed in comment
    page.reload()
    expect(viewer(page).get_by_text(seed)).to_be_visible()


@pytest.mark.parametrize("language", ["JavaScript", "Python", "curl", "keyreel"])
def test_each_code_snippet_makes_a_video_unchanged(page: Page, whole: Served, language: str, tmp_path: Path) -> None:
    compose_small(page)
    show_code(page)
    page.get_by_role("tab", name=language).click()
    printed = run(language, page.locator("#code-text").inner_text(), whole.key, tmp_path)
    content = (
        (tmp_path / "video.mp4").read_bytes()
        if language == "keyreel"
        else httpx.get(video_url(printed), trust_env=False).raise_for_status().content
    )
    (tmp_path / "made.mp4").write_bytes(content)
    assert likeness(sample_frames(tmp_path / "made.mp4", FRAMES)[0], SUNRISE) > 0.95


def compose_small(page: Page) -> None:
    """Fills the form: two pictures, a LoRA from the hub, few frames and steps."""
    compose(page, "a smooth transition")
    page.get_by_role("radio", name="480p").check()
    page.get_by_role("radio", name="1:1").check()
    set_number(page, "Frames", FRAMES)
    set_number(page, "Steps", 8)
    add_files(page, SUNRISE, NIGHT)
    expect(page.get_by_role("slider", name="night.png")).to_have_attribute("aria-valuenow", str(FRAMES - 1))
    page.get_by_role("button", name="Link or hub").click()
    page.get_by_label("Link or repository").fill("studio/looks")
    page.get_by_label("File in the repository").select_option("dusk.safetensors")
    page.get_by_role("group", name="LoRA 1").get_by_role("spinbutton", name="Scale").fill("0.4")
    page.keyboard.press("Tab")


def run(language: str, code: str, key: str, folder: Path) -> str:
    """Runs the code in a new folder. Returns what it prints."""
    variables = os.environ | {"FAL_KEY": key, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    match language:
        case "JavaScript":
            (folder / "video.mjs").write_text(code)
            (folder / "node_modules").symlink_to(ROOT / "web" / "node_modules")
            command = ["node", "video.mjs"]
        case "Python":
            (folder / "video.py").write_text(code)
            command = [sys.executable, "video.py"]
        case _:
            command = ["bash", "-c", code]
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=VIDEO_TIMEOUT / 1000
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def video_url(printed: str) -> str:
    """Finds the video's URL in the output of a snippet, which is JSON or the URL."""
    text = printed.strip()
    return str(json.loads(text)["video"]["url"]) if text.startswith("{") else text


def likeness(frame: np.ndarray, picture: Path) -> float:
    """Returns the correlation of two 12 by 12 grids of means: the frame's, and that of the picture cut to its shape."""
    height, width, _ = frame.shape
    wanted = read_image(picture, Size(width, height), Limits.from_settings(Settings()), ())
    return float(np.corrcoef(means(frame), means(wanted))[0, 1])


def means(frame: np.ndarray) -> np.ndarray:
    rows = np.array_split(frame.astype(float), 12, axis=0)
    return np.array([cell.mean((0, 1)) for row in rows for cell in np.array_split(row, 12, axis=1)]).ravel()
