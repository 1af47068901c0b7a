"""The page in a real browser, on a real server whose worker needs no model."""

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import APIResponse, Browser, BrowserContext, Page, Route, expect

from keyreel.fal.schema import EXAMPLE_PROMPTS
from tests.server.live import LiveServer
from tests.web.browser import (
    PHONE,
    ROOT,
    add_files,
    compose,
    generate,
    opened,
    serious_issues,
    show_code,
    viewer,
    watched,
)
from tests.web.films import film
from tests.web.gateway import gateway

SUNRISE = ROOT / "examples" / "sunrise.png"
NIGHT = ROOT / "examples" / "night.png"
MAX_FIRST_LOAD = 80_000
"""Bytes, compressed, for someone who has made no video yet."""

pytestmark = pytest.mark.slow


def test_the_key_is_removed_from_the_url_and_not_stored(page: Page, server: LiveServer) -> None:
    secret = server.user.secret
    assert page.url == f"{server.url}/"
    kept = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, history.length])")
    assert secret not in kept
    assert document_cookie(page) == ""
    page.reload()
    expect(page.get_by_role("button", name="Generate")).to_be_visible()
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert secret not in cookie["value"]


def document_cookie(page: Page) -> str:
    return str(page.evaluate("document.cookie"))


def test_signing_in_and_out(visitor: BrowserContext, server: LiveServer) -> None:
    page = visitor.new_page()
    page.goto(f"{server.url}/#key=no:body")
    expect(page.get_by_text("The server does not know this key")).to_be_visible()
    assert page.url == f"{server.url}/"
    page.get_by_label("Your key").fill(server.credentials)
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    page.reload()
    expect(page.get_by_label("Your key")).to_be_visible()


def revoke(server: LiveServer, key_id: str) -> None:
    server.call(server.services.store.keys.revoke(key_id))
    server.services.keyring.forget()


def test_a_revoked_key_ends_its_session(visitor: BrowserContext, server: LiveServer) -> None:
    new = server.call(server.services.store.keys.create("guest"))
    page = opened(visitor, f"{server.url}/#key={new.key.id}:{new.secret}")
    revoke(server, new.key.id)
    page.reload()
    expect(page.get_by_label("Your key")).to_be_visible()


def test_a_key_that_is_revoked_while_the_page_is_open_ends_its_session(
    visitor: BrowserContext, server: LiveServer
) -> None:
    new = server.call(server.services.store.keys.create("guest"))
    page = opened(visitor, f"{server.url}/#key={new.key.id}:{new.secret}")
    revoke(server, new.key.id)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # makes the page ask at once
    expect(page.get_by_label("Your key")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_text(
        "This session has ended: its user signed out, or its key was revoked or has expired."
    )


def test_the_next_user_of_a_tab_does_not_see_the_requests_of_the_last_one(
    visitor: BrowserContext, server: LiveServer
) -> None:
    page = opened(visitor, f"{server.url}/#key={server.credentials}")
    compose(page, "a secret fox")
    generate(page)
    expect(page.get_by_label("History").get_by_text("a secret fox")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    new = server.call(server.services.store.keys.create("guest"))
    visitor.route("**/api/requests?*", lambda _: None)  # the list of the next user does not arrive
    page.get_by_label("Your key").fill(f"{new.key.id}:{new.secret}")
    page.get_by_role("button", name="Open the playground").click()
    expect(page.get_by_role("heading", name="History")).to_be_visible()
    expect(page.get_by_label("History").get_by_text("a secret fox")).not_to_be_visible()


def test_a_late_answer_for_the_last_user_of_a_tab_is_not_shown_to_the_next_one(
    visitor: BrowserContext, server: LiveServer
) -> None:
    page = opened(visitor, f"{server.url}/#key={server.credentials}")
    compose(page, "a late fox")
    generate(page)
    expect(page.get_by_label("History").get_by_text("a late fox")).to_be_visible()
    late: list[tuple[Route, APIResponse]] = []
    visitor.route("**/api/requests?*", lambda route: late.append((route, route.fetch())))
    with page.expect_request("**/api/requests?*"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_role("button", name="Sign out").click()
    new = server.call(server.services.store.keys.create("guest"))
    page.get_by_label("Your key").fill(f"{new.key.id}:{new.secret}")
    page.get_by_role("button", name="Open the playground").click()
    expect(page.get_by_role("heading", name="History")).to_be_visible()
    route, answer = late[0]
    with page.expect_response("**/api/requests?*") as arrived:
        route.fulfill(response=answer)
    arrived.value.finished()
    page.evaluate("new Promise(requestAnimationFrame)")  # the page has drawn what it learnt
    expect(page.get_by_label("History").get_by_text("a late fox")).not_to_be_visible()


def test_the_page_works_behind_tls_and_a_path_prefix(browser: Browser, tmp_path: Path) -> None:
    with gateway(tmp_path, "/studio") as base, watched(browser, ignore_https_errors=True) as visitor:
        # The URL lacks the last slash, as when people type it.
        page = opened(visitor, f"{base}#key=boss:secret")
        (cookie,) = visitor.cookies()
        assert cookie["secure"]
        add_files(page, SUNRISE)
        compose(page, "a fox")
        generate(page)
        assert page.url.startswith(f"{base}/#/r/")
        expect(viewer(page).get_by_role("heading", name="Next in the queue")).to_be_visible()


def test_a_request_of_another_endpoint_is_watched_and_cancelled(page: Page, server: LiveServer) -> None:
    server.worker.paused = True
    other = "fal-ai/ltx-video-13b-dev"
    body = {"prompt": "a fox from elsewhere"}
    httpx.post(f"{server.url}/queue/{other}", json=body, headers=server.headers, trust_env=False).raise_for_status()
    page.reload()
    expect(viewer(page).get_by_text("Next in the queue")).to_be_visible()
    viewer(page).get_by_role("button", name="Cancel").click()
    expect(viewer(page).get_by_role("heading", name="Cancelled")).to_be_visible()
    viewer(page).get_by_role("button", name="Code").click()
    expect(page.get_by_role("dialog").locator("pre")).to_contain_text(other)


def test_a_running_request_can_be_cancelled(page: Page) -> None:
    compose(page, "hold it")
    generate(page)
    expect(viewer(page).get_by_text("Step 1 of 2")).to_be_visible()
    viewer(page).get_by_text("Log").click()
    expect(viewer(page).get_by_text("Holding")).to_be_visible()
    viewer(page).get_by_role("button", name="Cancel").click()
    expect(viewer(page).get_by_role("heading", name="Cancelled")).to_be_visible()


def test_progress_survives_a_reload_and_shows_in_a_second_tab(page: Page, server: LiveServer) -> None:
    compose(page, "hold on")
    generate(page)
    expect(viewer(page).get_by_text("Step 1 of 2")).to_be_visible()
    page.reload()
    expect(viewer(page).get_by_text("Step 1 of 2")).to_be_visible()
    other = opened(page.context, page.url)
    expect(viewer(other).get_by_text("Step 1 of 2")).to_be_visible()
    server.release()
    for each in (page, other):
        expect(viewer(each).get_by_role("link", name="Download")).to_be_visible()


def test_the_position_in_the_queue_is_shown(page: Page, server: LiveServer) -> None:
    server.worker.paused = True
    for prompt in ("one", "two"):
        compose(page, prompt)
        generate(page)
        expect(viewer(page).get_by_text(prompt, exact=True)).to_be_visible()
    expect(viewer(page).get_by_role("heading", name="1 request before this one")).to_be_visible()
    viewer(page).get_by_role("button", name="Cancel").click()
    expect(viewer(page).get_by_role("heading", name="Cancelled")).to_be_visible()


def test_the_error_of_a_link_is_shown_at_its_field(page: Page) -> None:
    page.get_by_role("button", name="Add by link").click()
    page.get_by_label("Link to a picture or clip").fill("https://example.com/no.png")
    page.get_by_role("button", name="Add", exact=True).click()
    compose(page, "refuse file_download_error")
    generate(page)
    field = page.get_by_label("Link", exact=True)
    expect(field).to_have_accessible_description("It is wrong.")
    field.fill("https://example.com/yes.png")
    expect(field).to_have_accessible_description("")


def test_the_page_works_with_the_keyboard_alone(page: Page) -> None:
    add_files(page, SUNRISE, NIGHT)
    page.locator("body").focus()
    tab_to(page, "Prompt")
    page.keyboard.type("hold the keyboard")
    tab_to(page, "night.png")
    night = page.get_by_role("slider", name="night.png")
    expect(night).to_have_attribute("aria-valuenow", "88")
    for key, frame in (("ArrowLeft", "87"), ("Shift+ArrowLeft", "79"), ("Home", "1"), ("End", "88")):
        page.keyboard.press(key)
        expect(night).to_have_attribute("aria-valuenow", frame)
    page.keyboard.press("Control+Enter")
    expect(viewer(page).get_by_text("Step 1 of 2")).to_be_visible()
    tab_to(page, "Cancel")
    page.keyboard.press("Enter")
    expect(viewer(page).get_by_role("heading", name="Cancelled")).to_be_visible()


def tab_to(page: Page, name: str) -> None:
    """Presses Tab until the control `name` has the focus."""
    described = "e => (e.ariaLabel || e.labels?.[0]?.textContent || e.textContent).trim()"
    for _ in range(80):
        page.keyboard.press("Tab")
        if str(page.evaluate(f"({described})(document.activeElement)")).startswith(name):
            return
    raise AssertionError(f"{name} cannot be reached")


def test_dragging_stops_at_a_taken_frame_and_says_why(page: Page) -> None:
    add_files(page, SUNRISE, NIGHT)
    sunrise = page.get_by_role("slider", name="sunrise.png")
    sunrise.scroll_into_view_if_needed()
    track = page.locator(".track").bounding_box()
    start = sunrise.bounding_box()
    assert track
    assert start
    page.mouse.move(start["x"] + 20, start["y"] + 20)
    page.mouse.down()
    page.mouse.move(start["x"] + 20 + track["width"] / 2, start["y"] + 20, steps=5)
    expect(sunrise).to_have_attribute("aria-valuenow", re.compile("4[3-6]"))
    page.mouse.move(start["x"] + 20 + track["width"], start["y"] + 20, steps=5)
    expect(sunrise).to_have_attribute("aria-valuenow", "87")
    expect(page.get_by_text("Frame 88 is taken by night.png.")).to_be_visible()
    page.mouse.up()
    expect(page.get_by_text("Frame 88 is taken by night.png.")).to_be_hidden()
    page.keyboard.press("Delete")
    expect(sunrise).to_have_count(0)


def test_dragging_the_edge_of_a_clip_shortens_it(page: Page, tmp_path: Path) -> None:
    clip = film(tmp_path / "bar.mp4")
    page.locator(".timeline input[type=file]").first.set_input_files(clip)
    bar = page.get_by_role("slider", name="bar.mp4")
    expect(bar).to_have_accessible_name("bar.mp4, clip of 25 frames")
    bar.scroll_into_view_if_needed()
    edge, track = bar.locator(".edge").bounding_box(), page.locator(".track").bounding_box()
    assert edge
    assert track
    x, y, frame = edge["x"] + edge["width"] / 2, edge["y"] + edge["height"] / 2, track["width"] / 89
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 11 * frame, y, steps=5)
    expect(bar).to_have_accessible_name("bar.mp4, clip of 17 frames")
    page.mouse.up()
    page.keyboard.press("ArrowRight")
    expect(bar).to_have_attribute("aria-valuenow", "8")
    compose(page, "a bar")
    show_code(page)
    expect(page.get_by_role("tabpanel")).to_contain_text(re.compile('"start_frame_number": 8,\\s+"max_num_frames": 17'))


def test_examples_fill_the_prompt(page: Page) -> None:
    examples = page.get_by_role("region", name="Prompt").locator(".examples").get_by_role("button")
    page.get_by_role("button", name="More examples").click()
    expect(examples).to_have_count(len(EXAMPLE_PROMPTS))
    page.get_by_role("button", name=EXAMPLE_PROMPTS[-1]).click()
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value(EXAMPLE_PROMPTS[-1])
    expect(examples).to_have_count(0)


def test_the_draft_survives_a_reload(page: Page) -> None:
    compose(page, "a fox")
    add_files(page, NIGHT)
    page.get_by_role("radio", name="480p").check()
    page.reload()
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_have_value("a fox")
    expect(page.get_by_role("slider", name="night.png")).to_have_attribute("aria-valuenow", "0")
    expect(page.get_by_role("radio", name="480p")).to_be_checked()


def test_history_entries_can_be_filtered_and_deleted(page: Page) -> None:
    for prompt in ("alpha fox", "beta fox", "gamma bird", "delta bird"):
        compose(page, prompt)
        generate(page)
        expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
        expect(viewer(page).get_by_text(prompt)).to_be_visible()
    history = page.get_by_role("region", name="History")
    limits = re.compile(r"^Your limits: Waiting: 0 of 1000, Per minute: \d+ of 600, ")
    expect(history.get_by_text(limits)).to_be_visible()
    history.get_by_label("Filter the history").fill("fox alpha")
    expect(history.get_by_role("listitem")).to_have_count(1)
    history.get_by_role("listitem").hover()
    history.get_by_role("button", name="Delete: alpha fox").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep").click()
    expect(history.get_by_role("listitem")).to_have_count(1)
    history.get_by_role("button", name="Delete: alpha fox").click()
    assert serious_issues(page) == []
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(history.get_by_text("No request in the history contains these words.")).to_be_visible()
    page.reload()
    expect(page.get_by_role("link", name="beta fox")).to_be_visible()
    expect(page.get_by_role("link", name="alpha fox")).to_have_count(0)


def test_a_share_link_shows_one_video_without_a_key(page: Page, browser: Browser, server: LiveServer) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    compose(page, "a fox to be shown")
    generate(page)
    viewer(page).get_by_role("button", name="Copy a link to share").click()
    expect(page.get_by_text("Anyone with the link can see this video")).to_be_visible()
    link = str(page.evaluate("navigator.clipboard.readText()"))
    assert server.user.secret not in link
    with watched(browser) as visitor:
        other = visitor.new_page()
        other.goto(link)
        expect(viewer(other).get_by_text("a fox to be shown")).to_be_visible()
        assert other.evaluate(PLAYS) > 0
        assert serious_issues(other) == []
        other.goto(link[:-4] + "AAAA")
        expect(viewer(other).get_by_role("heading", name="This video is gone")).to_be_visible()
        other.get_by_role("link", name="Sign in").click()
        expect(other.get_by_label("Your key")).to_be_visible()
    page.goto(link)
    expect(viewer(page).get_by_text("a fox to be shown")).to_be_visible()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


PLAYS = """async () => {
  const video = document.querySelector("video");
  if (video.readyState < 1) await new Promise((resolve, reject) => {
    video.onloadedmetadata = resolve;
    video.onerror = reject;
  });
  return video.videoWidth;
}"""


def test_an_administrator_manages_requests_webhooks_and_keys(visitor: BrowserContext, server: LiveServer) -> None:
    key = f"{server.admin.key.id}:{server.admin.secret}"
    server.worker.paused = True
    httpx.post(
        f"{server.url}/queue/fal-ai/ltx-video-lora/multiconditioning?fal_webhook=http://127.0.0.1:9/hook",
        json={"prompt": "somebody's"},
        headers=server.headers,
        trust_env=False,
    ).raise_for_status()
    visitor.grant_permissions(["clipboard-read", "clipboard-write"])
    page = opened(visitor, f"{server.url}/#key={key}")
    page.get_by_role("link", name="Operate").click()
    requests = page.get_by_role("region", name="Requests of all keys", exact=True)
    row = requests.get_by_role("row", name=re.compile("somebody's"))
    expect(row).to_contain_text("user")
    row.get_by_role("button", name="Cancel").click()
    expect(row).to_contain_text("cancelled")
    calls = page.get_by_role("region", name="Webhook calls", exact=True)
    call = calls.get_by_role("row", name="127.0.0.1:9/hook")
    with page.expect_response("**/retry") as answered:
        call.get_by_role("button", name="Call again").click()
    assert answered.value.status == 204
    page.get_by_label("Name of the new key").fill("studio")
    page.get_by_label("Running", exact=True).fill("2")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("row", name=re.compile("studio.*Running: 0 of 2"))).to_be_visible()
    use = page.get_by_role("region", name="Usage in the last 31 days", exact=True)
    expect(use.get_by_role("row", name=re.compile("^user"))).to_have_text(re.compile(r"^user\d+\.\d\ss\d+\s[KM]?B"))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download daily usage as CSV").click()
    assert download.value.path().read_text().startswith("day,key_id,name,completed,failed,cancelled,")
    key = page.locator(".secret code").inner_text()
    page.locator(".secret").get_by_role("button", name="Copy").click()
    expect(page.locator(".toasts")).to_contain_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == key
    assert page.evaluate(
        "[...document.querySelectorAll('.keys .scrolls')].every((e) => e.scrollWidth <= e.clientWidth)"
    )
    assert (
        httpx.get(f"{server.url}/api/requests", headers={"Authorization": f"Key {key}"}, trust_env=False).json() == []
    )
    page.get_by_role("row", name=re.compile("studio")).get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("row", name=re.compile("studio.*revoked"))).to_be_visible()
    log = page.get_by_role("region", name="Audit log", exact=True)
    for action in ("key created", "key revoked", "webhook retried", "request cancelled", "signed in"):
        expect(log.get_by_role("row", name=re.compile(f"admin.*127.0.0.1.*{action}")).first).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download 31 days as CSV").click()
    assert download.value.path().read_text().startswith("time,key_id,name,address,action,")


def test_only_administrators_see_the_link_to_the_servers_state(page: Page) -> None:
    expect(page.get_by_role("link", name="Operate")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [(1440, 900), PHONE])
def test_axe_finds_no_serious_issue(browser: Browser, server: LiveServer, scheme: str, size: tuple[int, int]) -> None:
    key = f"{server.admin.key.id}:{server.admin.secret}"
    # Without motion, axe measures no colour in the middle of a transition.
    with watched(browser, size, color_scheme=scheme, reduced_motion="reduce") as visitor:
        page = visitor.new_page()
        page.goto(server.url)
        page.get_by_label("Your key").fill(key)
        assert serious_issues(page) == []
        page.keyboard.press("Enter")
        add_files(page, SUNRISE, NIGHT)
        page.get_by_text("More", exact=True).click()
        page.get_by_role("button", name="Link or hub").click()
        assert serious_issues(page) == []
        page.get_by_role("button", name="Remove LoRA 1").click()
        compose(page, "hold for axe")
        show_code(page)
        assert serious_issues(page) == []
        page.keyboard.press("Escape")
        generate(page)
        expect(viewer(page).get_by_text("Step 1 of 2")).to_be_visible()
        assert serious_issues(page) == []
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), "the page scrolls sideways"
        server.release()
        expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
        assert serious_issues(page) == []
        page.get_by_role("link", name="Operate").click()
        expect(page.get_by_role("heading", name="Workers")).to_be_visible()
        assert serious_issues(page) == []
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), "the page scrolls sideways"


def test_the_first_load_is_small(visitor: BrowserContext, server: LiveServer) -> None:
    new = server.call(server.services.store.keys.create("newcomer"))
    page = visitor.new_page()
    sizes: list[int] = []
    page.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
    page.goto(f"{server.url}/#key={new.key.id}:{new.secret}")
    expect(page.get_by_role("button", name="Generate")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert 30_000 < sum(sizes) < MAX_FIRST_LOAD, sizes
