"""What a creator does on the timeline: several files at once, other lengths, second thoughts, frames of a video."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect

from keyreel.media.mp4 import Mp4Writer
from keyreel.video.canvas import Size
from tests.web.browser import (
    ROOT,
    add_files,
    compose,
    drop,
    generate,
    serious_issues,
    set_number,
    show_code,
    viewer,
)
from tests.web.films import FRAMES

SUNRISE = ROOT / "examples" / "sunrise.png"
NIGHT = ROOT / "examples" / "night.png"
TIMES = "\N{MULTIPLICATION SIGN}"
SHOWS_A_FRAME = """() => new Promise((resolve) => {
  const video = document.querySelector(".viewer video");
  const check = () => (video.readyState >= 2 && !video.seeking ? resolve() : setTimeout(check, 20));
  check();
})"""
"""Waits until the player shows the frame at its time."""

pytestmark = pytest.mark.slow


def pictures(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{index}.png" for index in range(1, count + 1)]
    for index, path in enumerate(paths):
        Image.new("RGB", (160, 90), (40 * index, 90, 200 - 30 * index)).save(path)
    return paths


def clip(path: Path, frames: int) -> Path:
    pixels = np.zeros((frames, 48, 64, 3), np.uint8)
    with Mp4Writer(path, Size(64, 48), 25, {}) as writer:
        writer.write(pixels)
    return path


def item(page: Page, name: str) -> Locator:
    return page.locator(".track").get_by_role("slider", name=name)


def frames(page: Page) -> list[tuple[str, int]]:
    """Returns the names of the items with their frames, in the order of the frames."""
    found = page.locator(".item").evaluate_all("all => all.map(e => [e.ariaLabel.split(',')[0], +e.ariaValueNow])")
    return sorted(((name, frame) for name, frame in found), key=lambda each: each[1])


def expect_frames(page: Page, *expected: int) -> None:
    """Waits for items 1.png, 2.png, ... at these frames."""
    for index, frame in enumerate(expected, 1):
        expect(item(page, f"{index}.png")).to_have_attribute("aria-valuenow", str(frame))
    assert [name for name, _ in frames(page)] == [f"{index}.png" for index in range(1, len(expected) + 1)]


def toast(page: Page) -> Locator:
    return page.locator(".toasts")


def test_dropped_pictures_keep_their_order_and_are_spread_evenly(page: Page, tmp_path: Path) -> None:
    held: list[Route] = []
    page.route("**/storage/uploads/*", lambda route: held.append(route))
    paths = pictures(tmp_path, 5)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with page.expect_request(lambda request: request.method == "PUT" and len(held) == 4):
        drop(page, 0, *paths[:2], tmp_path / "broken.png", *paths[2:], tmp_path / "notes.txt")
    # All are there, each with its own progress, before any upload has ended.
    expect_frames(page, 0, 22, 44, 66, 88)
    expect(page.locator(".item progress")).to_have_count(5)
    expect(toast(page)).to_contain_text("5 items in order, at frames 0, 22, 44, 66 and 88.")
    expect(toast(page)).to_contain_text("broken.png cannot be read as a picture.")
    expect(toast(page)).to_contain_text("notes.txt is not a picture, a clip or a LoRA")
    held[1].abort()
    for route in [held[0], *held[2:]]:
        route.continue_()
    page.unroute_all(behavior="wait")
    expect(page.locator(".item progress")).to_have_count(0)
    expect(page.locator(".item.wrong")).to_have_count(1)
    page.locator(".item.wrong").click()
    page.get_by_role("button", name="Upload again").click()
    expect(page.locator(".item.wrong")).to_have_count(0)


def test_dropped_pictures_reach_from_the_drop_frame_to_the_next_item(page: Page, tmp_path: Path) -> None:
    paths = pictures(tmp_path, 4)
    drop(page, 60, paths[3])
    expect(item(page, "4.png")).to_have_attribute("aria-valuenow", "60")
    drop(page, 30, *paths[:3])
    expect_frames(page, 30, 40, 50, 60)
    page.get_by_role("button", name="Undo", exact=True).click()
    assert frames(page) == [("4.png", 60)]
    page.locator(".timeline input[type=file]").first.set_input_files(paths[:3])
    expect_frames(page, 0, 20, 40, 60)


def test_other_lengths_lose_nothing(page: Page, tmp_path: Path) -> None:
    add_files(page, *pictures(tmp_path, 5))
    for length, expected in (
        (25, [0, 21, 22, 23, 24]),
        (161, [0, 22, 44, 66, 160]),
        (89, [0, 22, 44, 66, 88]),
    ):
        set_number(page, "Frames", length)
        expect_frames(page, *expected)
        if length == 25:
            notice = page.get_by_role("status").filter(has_text="Moved from frame 44.")
            expect(notice).to_contain_text("2.png Moved from frame 22. Frame 22 is taken by 3.png.")
            expect(notice).to_contain_text("4.png Moved from frame 66. The video's last frame is 24.")
    slider = page.get_by_role("slider", name="Frames", exact=True)
    slider.focus()
    for key in ["ArrowLeft"] * 30 + ["ArrowRight"] * 30:
        slider.press(key)
    expect_frames(page, 0, 22, 44, 66, 88)
    page.get_by_role("button", name=re.compile("^Scale with length")).click()
    set_number(page, "Frames", 161)
    expect_frames(page, 0, 40, 80, 120, 160)
    set_number(page, "Frames", 25)
    expect_frames(page, 0, 6, 12, 18, 24)
    page.reload()
    expect_frames(page, 0, 6, 12, 18, 24)
    set_number(page, "Frames", 89)
    expect_frames(page, 0, 22, 44, 66, 88)


def test_every_step_can_be_undone_and_redone(page: Page, tmp_path: Path) -> None:
    compose(page, "a fox")
    add_files(page, *pictures(tmp_path, 2))
    item(page, "2.png").press("Delete")
    expect(item(page, "2.png")).to_have_count(0)
    toast(page).get_by_role("button", name="Undo").click()
    expect_frames(page, 0, 88)
    item(page, "1.png").press("End")
    expect(item(page, "1.png")).to_have_attribute("aria-valuenow", "87")
    set_number(page, "Frames", 25)
    page.get_by_role("button", name="Link or hub").click()
    page.get_by_label("Link or repository").fill("https://example.com/a.safetensors")
    page.get_by_role("button", name="Remove LoRA 1").click()
    expect(page.get_by_label("Link or repository")).to_have_count(0)
    prompt = page.get_by_role("textbox", name="Prompt", exact=True)
    page.locator("h2", has_text="Timeline").click()
    states: list[Callable[[], None]] = [
        lambda: expect(page.get_by_label("Link or repository")).to_have_value("https://example.com/a.safetensors"),
        lambda: expect(page.get_by_label("Link or repository")).to_have_value(""),
        lambda: expect(page.get_by_label("Link or repository")).to_have_count(0),
        lambda: expect(page.get_by_role("spinbutton", name="Frames", exact=True)).to_have_value("89"),
        lambda: expect_frames(page, 0, 88),
        lambda: expect(page.locator(".item")).to_have_count(0),
        lambda: expect(prompt).to_have_value(""),
    ]
    for check in states:
        page.keyboard.press("Control+z")
        check()
    expect(page.get_by_role("button", name="Undo (Ctrl+Z)")).to_be_disabled()
    for check in reversed(states[:-1]):
        page.keyboard.press("Shift+Control+z")
        check()
    expect(prompt).to_have_value("a fox")
    page.keyboard.press("Shift+Control+z")
    expect(page.get_by_label("Link or repository")).to_have_count(0)


def test_edit_can_be_undone(page: Page) -> None:
    compose(page, "a fox")
    generate(page)
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
    compose(page, "a long prompt that took an hour")
    viewer(page).get_by_role("button", name="Edit").click()
    prompt = page.get_by_role("textbox", name="Prompt", exact=True)
    expect(prompt).to_have_value("a fox")
    toast(page).get_by_role("button", name="Undo").click()
    expect(prompt).to_have_value("a long prompt that took an hour")


def test_dragging_shows_a_ghost_the_frame_and_the_reason(page: Page, tmp_path: Path) -> None:
    add_files(page, clip(tmp_path / "bar.mp4", 25), NIGHT)
    expect(item(page, "night.png")).to_have_attribute("aria-valuenow", "88")
    item(page, "night.png").scroll_into_view_if_needed()
    track, start = page.locator(".track").bounding_box(), item(page, "night.png").bounding_box()
    assert track
    assert start
    y, frame = start["y"] + 30, track["width"] / 89
    x = track["x"] + 88.5 * frame
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 76 * frame, y, steps=5)
    bubble = item(page, "night.png").locator(".reason")
    expect(bubble).to_contain_text("Frame 25")
    expect(bubble).to_contain_text("Frame 12 is taken by bar.mp4.")
    ghost = page.locator(".ghost").bounding_box()
    assert ghost
    assert ghost["x"] + ghost["width"] / 2 == pytest.approx(track["x"] + 12.5 * frame, abs=60)
    page.keyboard.press("Escape")
    expect(page.locator(".ghost")).to_have_count(0)
    expect(item(page, "night.png")).to_have_attribute("aria-valuenow", "88")
    page.mouse.up()
    # A clip that reaches past a shorter video says so, too.
    set_number(page, "Frames", 17)
    expect(page.locator(".notices")).to_contain_text(
        "bar.mp4 Shortened from 25 to 9 frames. Frame 16 is taken by night.png."
    )


def finished(page: Page) -> None:
    """Makes a video of as many frames as the film that the worker hands out."""
    compose(page, "a bar")
    set_number(page, "Frames", FRAMES)
    generate(page)
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
    page.evaluate(SHOWS_A_FRAME)


def shown_frame(page: Page) -> int:
    """Finds the frame that the player shows by the place of the bar in the film."""
    left = page.evaluate(
        """() => {
          const video = document.querySelector(".viewer video");
          const canvas = new OffscreenCanvas(256, 144);
          const context = canvas.getContext("2d");
          context.drawImage(video, 0, 0);
          const row = context.getImageData(0, 72, 256, 1).data;
          for (let x = 0; x < 256; x++) if (row[4 * x] > 140) return x;
          return -1;
        }"""
    )
    return round(float(left) / 9)


def at_frame(page: Page, frame: int) -> None:
    expect(page.get_by_label("Frame", exact=True)).to_contain_text(f"Frame {frame} of {FRAMES - 1}")
    page.evaluate(SHOWS_A_FRAME)


def test_player_and_timeline_share_a_playhead(page: Page) -> None:
    finished(page)
    page.locator("h2", has_text="Timeline").click()
    page.keyboard.press("k")
    head = page.get_by_role("slider", name="Playhead")
    head.press("Home")
    at_frame(page, 0)
    for key, frame in ((".", 1), (".", 2), (".", 3), (",", 2)):
        page.keyboard.press(key)
        at_frame(page, frame)
    assert shown_frame(page) == 2
    expect(head).to_have_attribute("aria-valuenow", "2")
    page.locator(".ruler").scroll_into_view_if_needed()
    ruler = page.locator(".ruler").bounding_box()
    assert ruler
    page.mouse.click(ruler["x"] + (17 + 0.5) * ruler["width"] / FRAMES, ruler["y"] + 8)
    at_frame(page, 17)
    assert shown_frame(page) == 17
    head.focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Pause (Space)")).to_be_visible()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Play (Space)")).to_be_visible()
    for keys, told in (
        ("l", ""),
        ("l", f"2 {TIMES}"),
        ("j", "backwards"),
        ("j", f"2 {TIMES}, backwards"),
    ):
        page.keyboard.press(keys)
        expect(page.get_by_label("Frame", exact=True)).to_contain_text(told)
    # Browsers tell of a start late, here when the video already goes backwards.
    page.evaluate("document.querySelector('.viewer video').dispatchEvent(new Event('play'))")
    expect(page.get_by_label("Frame", exact=True)).to_contain_text("backwards")
    page.keyboard.press("k")
    expect(page.get_by_label("Frame", exact=True)).not_to_contain_text("backwards")
    # In a text the keys are letters.
    page.get_by_role("textbox", name="Prompt", exact=True).press_sequentially(" jkl,.")
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("a bar jkl,.")
    assert serious_issues(page) == []


def test_a_finished_video_goes_on_in_the_next_one(page: Page) -> None:
    finished(page)
    page.get_by_role("button", name="Pause (Space)").click()
    page.get_by_role("slider", name="Playhead").press("Home")
    viewer(page).get_by_role("button", name="Pin last frame").click()
    expect(item(page, f"frame-{FRAMES - 1}.png")).to_have_attribute("aria-valuenow", "0")
    at_frame(page, FRAMES - 1)
    assert shown_frame(page) == FRAMES - 1
    for _ in range(3):
        page.keyboard.press(",")
    at_frame(page, FRAMES - 4)
    viewer(page).get_by_role("button", name="Pin this frame").click()
    expect(item(page, f"frame-{FRAMES - 4}.png")).to_have_attribute("aria-valuenow", str(FRAMES - 1))
    set_number(page, "Frames", 89)
    viewer(page).get_by_role("button", name="Extend").click()
    expect(page.locator(".item")).to_have_count(1)
    expect(toast(page)).to_contain_text(f"The timeline starts with the last {FRAMES} frames of this video.")
    assert serious_issues(page) == []
    show_code(page)
    expect(page.get_by_role("tabpanel")).to_contain_text(re.compile('"videos": \\[\\s+{\\s+"video_url": "[^"]+"'))
    page.keyboard.press("Escape")
    toast(page).get_by_role("button", name="Undo").click()
    expect(page.locator(".item")).to_have_count(2)


def test_extend_leaves_out_all_but_the_last_frames(page: Page) -> None:
    compose(page, "a bar")  # of 89 frames
    page.get_by_role("radio", name="480p").check()
    set_number(page, "Frames per second", 30)
    generate(page)
    expect(viewer(page).get_by_role("button", name="Extend")).to_be_visible()
    page.get_by_role("radio", name="720p").check()
    page.get_by_role("radio", name="9:16").check()
    set_number(page, "Frames per second", 24)
    set_number(page, "Steps", 12)
    viewer(page).get_by_role("button", name="Extend").click()
    expect(page.locator(".item")).to_have_accessible_name(re.compile("clip of 25 frames"))
    show_code(page)
    code = page.get_by_role("tabpanel")
    expect(code).to_contain_text('"skip_frames": 64')
    # The two videos can be joined.
    for given in ('"resolution": "480p"', '"frame_rate": 30', '"number_of_steps": 12'):
        expect(code).to_contain_text(given)
    expect(code).not_to_contain_text("aspect_ratio")


def test_the_crop_is_visible_and_can_be_moved(page: Page, tmp_path: Path) -> None:
    Image.new("RGB", (1600, 900), "teal").save(tmp_path / "wide.png")
    add_files(page, tmp_path / "wide.png")
    crop = page.get_by_role("slider", name="Crop")
    expect(crop).to_have_count(0)  # 16:9 fits
    page.get_by_role("radio", name="1:1").check()
    expect(page.locator(".item .crop")).to_be_visible()
    expect(crop).to_have_attribute("aria-valuenow", "50")
    crop.scroll_into_view_if_needed()
    box = crop.bounding_box()
    assert box
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] - 200, box["y"] + 10, steps=3)
    page.mouse.up()
    expect(crop).to_have_attribute("aria-valuenow", "0")
    crop.press("ArrowRight")
    expect(crop).to_have_attribute("aria-valuetext", "5 % from the left")
    show_code(page)
    expect(page.get_by_role("tabpanel")).to_contain_text('"focus_x": 0.301')
    page.keyboard.press("Escape")
    crop.dblclick()
    expect(crop).to_have_attribute("aria-valuenow", "50")
    assert serious_issues(page) == []


def test_only_safetensors_files_are_loras(page: Page, tmp_path: Path) -> None:
    for name in ("style.ckpt", "LOOK.SAFETENSORS"):
        (tmp_path / name).write_bytes(b"weights")
    page.locator(".loras input[type=file]").set_input_files([tmp_path / "style.ckpt", tmp_path / "LOOK.SAFETENSORS"])
    expect(toast(page)).to_contain_text("style.ckpt is not a LoRA (.safetensors).")
    expect(page.locator(".lora .file-name")).to_have_text(["LOOK.SAFETENSORS"])


def test_limits_speak_before_the_upload(page: Page, tmp_path: Path) -> None:
    uploads: list[str] = []
    page.on("request", lambda request: uploads.append(request.url) if request.method == "PUT" else None)
    page.route(
        "**/api/playground",
        lambda route: route.fulfill(
            json=route.fetch().json() | {"limits": {**LIMITS, "image_bytes": 40_000, "pixels": 1_000_000}}
        ),
    )
    page.reload()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(tmp_path / "heavy.png")
    Image.new("RGB", (1200, 900)).save(tmp_path / "large.png")
    files = [tmp_path / "heavy.png", tmp_path / "large.png", clip(tmp_path / "short.mp4", 8), *pictures(tmp_path, 1)]
    page.locator(".timeline input[type=file]").first.set_input_files(files)
    expect(toast(page)).to_contain_text("a picture may have 40 KB at most.")
    expect(toast(page)).to_contain_text(f"large.png has 1200 {TIMES} 900 pixels; 1 million are allowed. Scale it down.")
    expect(toast(page)).to_contain_text("short.mp4 has 8 frames; a clip needs at least 9.")
    expect(page.locator(".item")).to_have_count(1)
    expect(page.locator(".item progress")).to_have_count(0)
    assert len(uploads) == 1
    turning = [Image.new("P", (64, 48), index) for index in range(12)]
    for index, each in enumerate(turning):
        each.putpalette([index * 20, 80, 120] * 256)
    turning[0].save(tmp_path / "turn.gif", save_all=True, append_images=turning[1:])
    page.locator(".timeline input[type=file]").first.set_input_files(tmp_path / "turn.gif")
    expect(item(page, "turn.gif")).to_have_accessible_name("turn.gif, clip of 9 frames")


LIMITS = {"image_bytes": 10**8, "video_bytes": 10**8, "lora_bytes": 10**9, "pixels": 10**8, "video_seconds": 600}
