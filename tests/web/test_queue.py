"""What a creator does with the queue: more requests while one runs, several seeds, another order, second thoughts."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.server.live import LiveServer
from tests.web.browser import ROOT, add_files, compose, generate, opened, serious_issues, viewer, watched

NOTICES = """
  window.shown = [];
  window.Notification = class {
    static requestPermission = () => Promise.resolve("granted");
    constructor(title, { body }) { window.shown.push(`${title}: ${body}`); }
  };
  document.hasFocus = () => false;
"""
"""Records notifications in place of the desktop, which a browser without a screen lacks. Nobody looks at the page."""

pytestmark = pytest.mark.slow


@pytest.fixture
def visitor(browser: Browser, server: LiveServer) -> Iterator[BrowserContext]:
    with watched(browser) as context:
        context.add_init_script(NOTICES)
        yield context
    server.worker.paused = False
    server.cancel_all()


def queue(page: Page) -> Locator:
    return page.get_by_role("region", name="Queue")


def expect_queue(page: Page, *prompts: str) -> None:
    expect(queue(page).locator(".file-name")).to_have_text([*prompts])


def hold(page: Page, prompt: str) -> None:
    compose(page, prompt)
    generate(page)
    expect(viewer(page).get_by_text("Step 1 of 2")).to_be_visible()


def test_more_requests_are_queued_while_one_stays_in_view(page: Page, server: LiveServer) -> None:
    hold(page, "hold the view")
    first = page.url
    expect(page).to_have_title("50 % - Keyreel")
    expect(queue(page)).to_have_count(0)
    add_files(page, ROOT / "examples" / "sunrise.png")
    compose(page, "hold a fox")
    generate(page)
    expect(page.locator(".toasts")).to_contain_text("Added to the queue.")
    compose(page, "hold twins")
    page.get_by_role("radio", name="\N{MULTIPLICATION SIGN}2").check()
    generate(page)
    expect(page.locator(".toasts")).to_contain_text("2 requests added to the queue.")
    assert page.url == first
    expect(viewer(page).get_by_text("Step 1 of 2")).to_be_visible()
    expect_queue(page, "hold the view", "hold a fox", "hold twins", "hold twins")
    expect(queue(page).get_by_role("img").or_(queue(page).locator("img.thumb"))).to_have_count(3)
    assert serious_issues(page) == []
    # Whoever opens the page sees what runs, not what was submitted last.
    other = opened(page.context, server.url)
    expect(viewer(other).get_by_text("Step 1 of 2")).to_be_visible()
    assert other.url == first
    server.release()
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
    expect_queue(page, "hold a fox", "hold twins", "hold twins")


def test_four_videos_have_seeds_that_follow_each_other(page: Page, server: LiveServer) -> None:
    server.worker.paused = True
    page.get_by_role("textbox", name="Seed").fill("9007199254740992")
    page.get_by_role("textbox", name="Seed").press("Tab")
    page.get_by_role("radio", name="\N{MULTIPLICATION SIGN}4").check()
    compose(page, "four foxes")
    generate(page)
    expect(queue(page).get_by_role("listitem")).to_have_count(4)
    newest = server.call(server.services.store.browse.requests(limit=4))
    assert [each.seed for each in newest] == [2**53 + 3, 2**53 + 2, 2**53 + 1, 2**53]


def test_waiting_requests_can_be_reordered_cancelled_and_cleared(page: Page, server: LiveServer) -> None:
    compose(page, "a quick one")  # from which the page learns how long a video takes
    generate(page)
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
    hold(page, "hold the line")
    for prompt in ("one", "two", "three"):
        compose(page, prompt)
        generate(page)
        expect(queue(page).get_by_text(prompt)).to_be_visible()
    expect_queue(page, "hold the line", "one", "two", "three")
    expect(queue(page).get_by_role("button", name="Earlier: one")).to_be_disabled()
    queue(page).get_by_role("button", name="Earlier: three").click()
    expect_queue(page, "hold the line", "one", "three", "two")
    queue(page).get_by_role("button", name="Later: one").click()
    expect_queue(page, "hold the line", "three", "one", "two")
    queue(page).get_by_role("button", name="Cancel: one").click()
    expect_queue(page, "hold the line", "three", "two")
    queue(page).get_by_role("button", name="Clear").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep").click()
    expect_queue(page, "hold the line", "three", "two")
    queue(page).get_by_role("button", name="Clear").click()
    page.get_by_role("dialog").get_by_role("button", name="Clear").click()
    expect(queue(page)).to_have_count(0)
    server.release()
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()


def test_the_wait_is_told_when_a_worker_and_its_speed_are_known(page: Page) -> None:
    page.route("**/health", lambda route: route.fulfill(json={"workers": [WORKER]}))
    page.route(
        "**/api/requests?*",
        lambda route: route.fulfill(json=[each | SPEED.get(each["state"], {}) for each in route.fetch().json()]),
    )
    compose(page, "a quick one")
    generate(page)
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
    page.reload()
    hold(page, "hold the clock")
    for prompt in ("one", "two"):
        compose(page, prompt)
        generate(page)
        expect(queue(page).get_by_text(prompt)).to_be_visible()
    # Half a video is left, and one waits before the second.
    expect(queue(page).locator(".queued-state")).to_have_text(
        ["50 %", "In 20\N{NO-BREAK SPACE}s", "In 60\N{NO-BREAK SPACE}s"]
    )
    queue(page).get_by_role("link", name="two").click()
    expect(viewer(page).get_by_text(re.compile("^Starts in about 60"))).to_be_visible()
    page.unroute_all(behavior="wait")


WORKER = {"name": "w", "device": "cpu", "model": "demo", "ready": True}
SPEED = {"COMPLETED": {"started": 100.0, "finished": 140.0}}


def test_no_wait_is_told_of_a_request_that_is_next(page: Page, server: LiveServer) -> None:
    page.route("**/health", lambda route: route.fulfill(json={"workers": [WORKER]}))
    page.reload()
    compose(page, "a quick one")
    generate(page)
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
    server.worker.paused = True
    compose(page, "the next one")
    page.get_by_role("button", name="Generate").click()
    expect(viewer(page).locator(".watch-text")).to_have_text("Next in the queue")
    page.unroute_all(behavior="wait")


def test_a_notification_tells_who_looks_elsewhere(page: Page, server: LiveServer) -> None:
    hold(page, "hold the bell")
    bell = viewer(page).get_by_role("button", name="Notify me when it is done")
    bell.click()
    expect(bell).to_have_attribute("aria-pressed", "true")
    server.release()
    expect(page).to_have_title("Keyreel")
    assert page.evaluate("window.shown") == ["Your video is ready: hold the bell"]
