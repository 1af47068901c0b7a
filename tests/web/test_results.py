"""What a creator does with finished videos: look up how they were made, make them again, reuse prompts and LoRAs."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.server.live import LiveServer
from tests.web.browser import PHONE, ROOT, add_files, compose, drop, generate, serious_issues, set_number, viewer
from tests.web.films import film

SUNRISE = ROOT / "examples" / "sunrise.png"
WORKER = {
    "name": "w",
    "device": "cpu",
    "model": "demo",
    "ready": True,
    "recipes": ["single", "published"],
    "distilled": False,
    "expands": True,
    "loras": ["keyreel:ink", "keyreel:neon"],
}

BROKEN_NAMES = """() => [...document.querySelectorAll(".details dt")].filter((name) => {
  const text = document.createRange();
  text.selectNodeContents(name);
  return text.getClientRects().length > 1;
}).map((name) => name.textContent)"""
"""Lists the names of settings that take more than one line."""

pytestmark = pytest.mark.slow


def prompt(page: Page) -> str:
    return page.get_by_role("textbox", name="Prompt", exact=True).input_value()


def code(page: Page, button: str = "Code") -> str:
    """Opens the code of the video in the viewer and returns it."""
    viewer(page).get_by_role("button", name=button, exact=True).click()
    text = page.get_by_role("tabpanel").inner_text()
    page.keyboard.press("Escape")
    return text


def test_a_result_tells_how_it_was_made(page: Page) -> None:
    add_files(page, SUNRISE)
    page.get_by_role("slider", name="Strength").fill("0.4")
    page.get_by_role("textbox", name="Seed").fill("9007199254740993")
    compose(page, "a fox in the snow")
    set_number(page, "Steps", 12)
    generate(page)
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
    # The next draft does not change what is told of this video.
    compose(page, "another draft")
    set_number(page, "Steps", 40)
    viewer(page).get_by_text("All settings and inputs").click()
    details = viewer(page).locator(".details")
    expect(details.get_by_role("listitem")).to_contain_text("sunrise.pngFrame 0, strength 0.4")
    assert page.evaluate(BROKEN_NAMES) == []
    for told in ("Steps12", "Frames89", "Seed9007199254740993", "Reverse videooff"):
        expect(details).to_contain_text(told)
    assert serious_issues(page) == []
    shown = code(page)
    assert '"prompt": "a fox in the snow"' in shown
    assert '"number_of_steps": 12' in shown
    assert '"seed": "9007199254740993"' in shown
    page.get_by_role("button", name="Undo (Ctrl+Z)").focus()
    viewer(page).get_by_role("button", name="Edit").click()
    expect(page.get_by_role("textbox", name="Seed")).to_have_value("9007199254740993")


def test_compare_tells_how_two_videos_differ(page: Page) -> None:
    add_files(page, SUNRISE)
    compose(page, "a fox in the morning")
    generate(page)
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
    page.locator(".item").press("Delete")
    set_number(page, "Steps", 12)
    compose(page, "a fox in the evening")
    generate(page)
    expect(viewer(page).get_by_text("a fox in the evening")).to_be_visible()
    viewer(page).get_by_role("button", name="Compare").click()
    page.locator(".made").get_by_role("link", name=re.compile("a fox in the morning")).click()
    table = page.get_by_role("table", name="Differences")
    expect(table.get_by_role("row", name="Steps")).to_have_text("Steps1230")
    expect(table.get_by_role("row", name="Pictures")).to_have_text("Picturesnonesunrise.png (frame 0, strength 1)")
    assert serious_issues(page) == []


def test_the_history_brings_the_viewer_into_view(page: Page) -> None:
    compose(page, "a fox above")
    generate(page)
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    card = page.locator(".made").get_by_role("link", name=re.compile("a fox above")).first
    card.scroll_into_view_if_needed()
    expect(viewer(page).locator(".screen")).not_to_be_in_viewport()
    card.click()
    expect(viewer(page).locator(".screen")).to_be_in_viewport(ratio=1)


def test_a_dropped_video_brings_back_its_request(page: Page, tmp_path: Path) -> None:
    images = [{"image_url": "sunrise.png", "start_frame_number": 40, "strength": 0.5}]
    request = {"prompt": "dawn", "seed": 2**53 + 1, "images": images, "loras": [{"path": "a/b", "scale": 0.3}]}
    facts = {"generator": "Keyreel 0.1.0", "request": request}
    made = film(tmp_path / "made.mp4", {"comment": json.dumps(facts)})
    compose(page, "an hour's work")
    drop(page, 0, made, on=".viewer")
    expect(page.locator(".toasts")).to_contain_text("Add these files again: sunrise.png.")
    assert prompt(page) == "dawn"
    expect(page.get_by_role("textbox", name="Seed")).to_have_value(str(2**53 + 1))
    expect(page.get_by_label("Link or repository")).to_have_value("a/b")
    expect(page.locator(".summary")).to_have_text(re.compile("Add the missing files"))
    item = page.locator(".track").get_by_role("slider", name="sunrise.png")
    expect(item).to_have_attribute("aria-valuenow", "40")
    drop(page, 0, SUNRISE)
    expect(page.locator(".item")).to_have_count(1)
    expect(page.locator(".item.wrong")).to_have_count(0)
    expect(item).to_have_attribute("aria-valuenow", "40")
    for _ in range(2):
        page.get_by_role("button", name="Undo (Ctrl+Z)").click()
    assert prompt(page) == "an hour's work"
    # On the timeline the same file is a clip. A video from elsewhere is one everywhere.
    drop(page, 0, made)
    expect(page.locator(".item")).to_have_accessible_name(re.compile("^made.mp4"))
    drop(page, 0, film(tmp_path / "other.mp4"), on=".viewer")
    expect(page.locator(".item")).to_have_count(2)
    assert prompt(page) == "an hour's work"


def test_a_dropped_video_of_the_history_brings_its_inputs(page: Page, server: LiveServer, tmp_path: Path) -> None:
    add_files(page, SUNRISE)
    page.get_by_role("textbox", name="Seed").fill("77")
    compose(page, "a known dawn")
    generate(page)
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
    request = {"prompt": "a known dawn", "seed": 77, "images": [{"image_url": "sunrise.png"}]}
    facts = {"generator": "Keyreel 0.1.0", "request": request}
    compose(page, "another")
    page.locator(".item").press("Delete")
    drop(page, 0, film(tmp_path / "made.mp4", {"comment": json.dumps(facts)}), on=".viewer")
    expect(page.locator(".item.image img")).to_have_attribute("src", re.compile(f"^{server.url}/files/"))
    assert prompt(page) == "a known dawn"


def test_prompts_and_loras_of_before_are_at_hand(page: Page) -> None:
    page.route("**/health", lambda route: route.fulfill(json={"workers": [WORKER]}))
    page.reload()
    chips = page.get_by_role("group", name="LoRAs to add")
    expect(chips.get_by_role("button")).to_have_text(["ink", "neon"])
    chips.get_by_role("button", name="neon").click()
    expect(page.get_by_role("group", name="LoRA 1").locator(".file-name")).to_have_text("neon")
    page.get_by_role("button", name="Link or hub").click()
    page.get_by_label("Link or repository").fill("https://example.com/style.safetensors")
    compose(page, "a fox to remember")
    generate(page)
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
    assert '"path": "keyreel:neon"' in code(page)
    for _ in range(2):
        page.get_by_role("button", name="Remove LoRA 1").click()
    compose(page, "a bird")
    expect(chips.get_by_role("button", name="https://example.com/style.safetensors")).to_be_visible()
    page.get_by_role("button", name="Recent prompts").click()
    page.get_by_role("button", name="a fox to remember", exact=True).click()
    assert prompt(page) == "a fox to remember"
    page.unroute_all(behavior="wait")


def test_a_lora_of_a_request_that_failed_is_not_offered_again(page: Page) -> None:
    page.get_by_role("button", name="Link or hub").click()
    page.get_by_label("Link or repository").fill("https://example.com/broken.safetensors")
    compose(page, "refuse lora_load_error")
    generate(page)
    expect(viewer(page).locator(".problems")).to_have_text("Picture 1: It is wrong.")
    page.get_by_role("button", name="Remove LoRA 1").click()
    expect(page.get_by_role("group", name="LoRA 1")).to_have_count(0)
    expect(page.get_by_role("button", name="https://example.com/broken.safetensors")).to_have_count(0)
