"""What the page does over hours, on other screens, and when server, model or session cannot do what is asked."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.server.live import LiveServer
from tests.web.browser import (
    ELSEWHERE,
    PHONE,
    ROOT,
    add_files,
    compose,
    generate,
    opened,
    serious_issues,
    viewer,
    watched,
)
from tests.web.test_playground import PLAYS, revoke

SUNRISE = ROOT / "examples" / "sunrise.png"
LAPTOP = (1280, 720)
URLS = """
  window.held = new Set();
  const [create, revoke] = [URL.createObjectURL, URL.revokeObjectURL];
  URL.createObjectURL = (file) => { const url = create(file); window.held.add(url); return url; };
  URL.revokeObjectURL = (url) => { window.held.delete(url); revoke(url); };
"""
"""Counts the object URLs that are not released."""
SMALL_TARGETS = """() => [...document.querySelectorAll("button, a, input, select, textarea, summary, [role=slider]")]
  .filter((element) => element.offsetParent && !element.closest(".skip, .playhead-grip"))
  .map((element) => [element.outerHTML, (element.closest("label") ?? element).getBoundingClientRect()])
  .filter(([, box]) => box.width < 43.9 || box.height < 43.9)
  .map(([html, box]) => `${Math.round(box.width)} x ${Math.round(box.height)}: ${html.slice(0, 120)}`)"""
"""Lists what fingers miss. The playhead's grip is larger than its box: it has an invisible edge."""
FOCUS = """() => {
  const focused = document.activeElement;
  const box = focused.getBoundingClientRect();
  const top = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
  const bar = top?.closest(".header, .go");
  return [focused.getAttribute("aria-label") ?? focused.textContent.slice(0, 40), !!bar && !bar.contains(focused)];
}"""
"""Returns the name of what has the focus, and whether the header or the bar with Generate lies over it."""

pytestmark = pytest.mark.slow


def prompt(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Prompt", exact=True)


def test_files_are_released_when_no_step_shows_them(page: Page, tmp_path: Path) -> None:
    page.add_init_script(URLS)
    page.reload()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    page.locator(".timeline input[type=file]").first.set_input_files(tmp_path / "broken.png")
    expect(page.locator(".toasts")).to_contain_text("broken.png cannot be read")
    add_files(page, SUNRISE)
    assert page.evaluate("window.held.size") == 1
    page.locator(".item").press("Delete")
    expect(page.locator(".item")).to_have_count(0)
    assert page.evaluate("window.held.size") == 1, "the file is needed to undo the step"
    for _ in range(2):
        page.get_by_role("button", name="Undo (Ctrl+Z)").click()
    compose(page, "a step that cannot be followed by a redo")
    assert page.evaluate("window.held.size") == 0


def test_a_long_history_holds_only_the_cards_in_view(page: Page) -> None:
    compose(page, "the only fox")
    generate(page)
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()

    def lengthen(route: Route) -> None:
        one = route.fetch().json()[0]
        many = [
            one | {"id": str(n), "seq": n, "input": {"prompt": f"fox {n}"}, "output": None} for n in range(600, 0, -1)
        ]
        route.fulfill(json=[one, *many])

    page.route("**/api/requests?*", lengthen)
    page.reload()
    cards = page.get_by_role("region", name="History").get_by_role("listitem")
    expect(cards.first).to_have_attribute("aria-setsize", "601")
    assert 0 < cards.count() < 100
    page.get_by_text("601 requests").scroll_into_view_if_needed()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.get_by_role("link", name="fox 1 ", exact=False).last).to_be_visible()
    assert 0 < cards.count() < 100
    page.unroute_all(behavior="wait")


def test_a_server_that_is_away_is_told_of_and_the_draft_kept(page: Page) -> None:
    compose(page, "a patient fox")
    expect(page.locator(".worker")).to_have_class("worker none")
    page.route(re.compile("/(api|health)"), lambda route: route.abort())
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator(".toasts")).to_contain_text("The server does not answer. Trying again.")
    expect(page.locator(".worker")).to_have_class("worker stale")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".toasts")).to_contain_text(
        "The request was not accepted. The server does not answer. Check that it runs and that you are connected"
    )
    assert "fetch" not in page.locator(".toasts").inner_text()
    expect(prompt(page)).to_have_value("a patient fox")
    page.unroute_all(behavior="wait")
    page.evaluate("dispatchEvent(new Event('online'))")
    expect(page.locator(".toast.bad")).to_have_count(0)
    expect(page.locator(".worker")).to_have_class("worker none")


def test_what_fails_while_the_server_is_away_is_told_and_can_be_done_again(page: Page) -> None:
    away = "The server does not answer. Check that it runs"
    compose(page, "a fox")
    generate(page)
    expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
    page.route("**/api/**", lambda route: route.abort())
    viewer(page).get_by_role("button", name="Vary").click()
    expect(page.locator(".toasts")).to_contain_text(f"The request was not accepted. {away}")
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator(".toast").filter(has_text=re.compile(f"^{away}"))).to_be_visible()
    page.unroute_all(behavior="wait")
    compose(page, "hold the fox")
    generate(page)
    expect(viewer(page).get_by_text("Step 1 of 2")).to_be_visible()
    page.route("**/api/**", lambda route: route.abort())
    cancel = viewer(page).get_by_role("button", name="Cancel")
    cancel.click()
    expect(page.locator(".toasts")).to_contain_text(away)
    expect(cancel).to_be_enabled()
    page.unroute_all(behavior="wait")
    cancel.click()
    expect(viewer(page).get_by_role("heading", name="Cancelled")).to_be_visible()


def test_the_page_works_over_plain_http_from_another_machine(browser: Browser, server: LiveServer) -> None:
    with watched(browser) as visitor:
        url = server.url.replace("127.0.0.1", ELSEWHERE)
        page = opened(visitor, f"{url}/#key={server.credentials}")
        assert not page.evaluate("isSecureContext")
        add_files(page, SUNRISE)
        compose(page, "a fox next door")
        page.locator(".go").get_by_role("button", name="Code").click()
        page.get_by_role("button", name="Copy").click()
        expect(page.locator(".toasts")).to_contain_text("Copied.")
        page.keyboard.press("Escape")
        prompt(page).press("Control+A")
        prompt(page).press("Control+V")
        expect(prompt(page)).to_have_value(re.compile("a fox next door.*sunrise.png", re.DOTALL))


def test_the_bars_do_not_hide_what_has_the_focus(page: Page) -> None:
    page.set_viewport_size({"width": LAPTOP[0], "height": LAPTOP[1]})
    compose(page, "a fox")
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        name, is_hidden = page.evaluate(FOCUS)
        assert not is_hidden, name
        reached.append(name)
    assert "Steps" in reached


def test_a_key_that_ends_at_a_submit_keeps_the_draft(browser: Browser, server: LiveServer) -> None:
    with watched(browser) as visitor:
        new = server.call(server.services.store.keys.create("guest"))
        page = opened(visitor, f"{server.url}/#key={new.key.id}:{new.secret}")
        page.route("**/api/requests?*", lambda route: route.fulfill(json=[]))  # so that the submit learns of it
        compose(page, "a fox that waits")
        revoke(server, new.key.id)
        page.get_by_role("button", name="Generate").click()
        expect(page.get_by_role("alert")).to_contain_text("This session has ended")
        page.unroute_all(behavior="wait")
        # Somebody else does not see it, and finds a draft of their own.
        page.get_by_label("Your key").fill(server.credentials)
        page.keyboard.press("Enter")
        expect(prompt(page)).to_have_value("")
        kept = page.evaluate("Object.keys(localStorage).map((name) => localStorage[name]).join()")
        assert "a fox that waits" in kept


def test_the_page_offers_only_what_the_model_can_do(page: Page) -> None:
    worker = {"name": "w", "device": "cpu", "model": "x", "ready": True, "loras": []}
    able = worker | {"recipes": ["distilled", "published"], "distilled": True, "expands": False}
    answers = [[able], [worker | {"recipes": None, "distilled": False, "expands": True}]]
    page.route("**/health", lambda route: route.fulfill(json={"workers": answers[0]}))
    page.reload()
    page.get_by_text("More", exact=True).click()
    recipe = page.get_by_role("group", name="Recipe")
    expect(recipe.get_by_role("radio")).to_have_count(3)
    expect(recipe.get_by_role("radio", name="distilled")).to_be_visible()
    expect(page.get_by_label("Negative prompt")).to_have_count(0)
    expect(page.get_by_role("switch", name="Expand prompt")).to_have_count(0)
    answers.pop(0)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.get_by_label("Recipe").get_by_role("option")).to_have_count(7)
    expect(page.get_by_label("Negative prompt")).to_be_visible()
    expect(page.get_by_role("switch", name="Expand prompt")).to_be_visible()


def test_workers_of_other_models_do_not_count(page: Page) -> None:
    worker = {"name": "w", "device": "cpu", "model": "x", "pool": "default", "ready": True, "loras": []}
    other = worker | {"pool": "other model", "loras": ["keyreel:ink"]}
    abilities = {"distilled": False, "expands": False}
    workers = [worker | {"recipes": ["single"], **abilities}, other | {"recipes": ["stg", "single"], **abilities}]
    page.route("**/health", lambda route: route.fulfill(json={"workers": workers}))
    page.reload()
    page.get_by_text("More", exact=True).click()
    recipe = page.get_by_role("group", name="Recipe")
    expect(recipe.get_by_role("radio", name="single")).to_be_visible()
    expect(recipe.get_by_role("radio", name="stg")).to_have_count(0)
    expect(page.get_by_role("button", name="ink", exact=True)).to_have_count(0)


def test_generate_says_why_it_is_disabled_and_a_seed_what_it_may_be(page: Page) -> None:
    button = page.get_by_role("button", name="Generate")
    expect(button).to_be_disabled()
    expect(button).to_have_accessible_description("Write a prompt.")
    compose(page, "a fox")
    expect(button).to_have_accessible_description(re.compile("89 frames"))
    seed = page.get_by_role("textbox", name="Seed")
    seed.fill("1.5")
    expect(seed).to_have_accessible_description("A seed is a whole number from -2^63 to 2^63 - 1.")
    seed.fill("-9223372036854775808")
    expect(seed).to_have_accessible_description("")


def test_two_tabs_keep_their_drafts(page: Page, server: LiveServer) -> None:
    compose(page, "the first fox")
    other = opened(page.context, server.url)
    expect(prompt(other)).to_have_value("the first fox")
    compose(other, "the second fox")
    expect(page.locator(".toasts")).to_contain_text("Another tab has changed its draft.")
    expect(prompt(page)).to_have_value("the first fox")
    for each, text in ((page, "the first fox"), (other, "the second fox")):
        each.reload()
        expect(prompt(each)).to_have_value(text)
    compose(other, "the third fox")
    page.locator(".toasts").get_by_role("button", name="Use the other draft").click()
    expect(prompt(page)).to_have_value("the third fox")
    page.locator(".toasts").get_by_role("button", name="Undo").click()
    expect(prompt(page)).to_have_value("the first fox")


def test_nothing_is_hidden_on_a_small_laptop(browser: Browser, server: LiveServer) -> None:
    with watched(browser, LAPTOP) as visitor:
        page = opened(visitor, f"{server.url}/#key={server.credentials}")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.tagName") == "MAIN"
        # Everything scrolls with the page, and Generate stays in view.
        inner = (
            "all => all.filter(e => e.scrollHeight > e.clientHeight + 1 && getComputedStyle(e).overflowY !== 'visible')"
        )
        assert (
            page.locator(".compose *:not(textarea):not(.hidden)").evaluate_all(f"{inner}.map(e => e.className)") == []
        )
        for place in (page.get_by_role("spinbutton", name="Steps"), page.get_by_role("heading", name="LoRAs")):
            place.scroll_into_view_if_needed()
            expect(page.get_by_role("button", name="Generate")).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("width", [320, 2560])
def test_narrow_and_wide_screens_show_everything(browser: Browser, server: LiveServer, width: int) -> None:
    with watched(browser, (width, 900)) as visitor:
        page = opened(visitor, f"{server.url}/#key={server.credentials}")
        add_files(page, SUNRISE)
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), "the page scrolls sideways"
        places = [page.get_by_role("region", name=name).bounding_box() for name in ("Prompt", "Timeline", "History")]
        lefts = {round(place["x"]) for place in places if place}
        assert len(lefts) == (1 if width == 320 else 3)


def test_a_message_does_not_cover_generate_on_a_phone(browser: Browser, server: LiveServer) -> None:
    with watched(browser, PHONE, has_touch=True, is_mobile=True) as visitor:
        page = opened(visitor, f"{server.url}/#key={server.credentials}")
        add_files(page, SUNRISE)
        page.locator(".item").press("Delete")
        toast, bar = page.locator(".toast").bounding_box(), page.locator(".go").bounding_box()
        assert toast
        assert bar
        assert toast["y"] + toast["height"] <= bar["y"]


def test_a_phone_has_large_targets_and_still_pictures(browser: Browser, server: LiveServer) -> None:
    options = {"has_touch": True, "is_mobile": True, "reduced_motion": "reduce"}
    with watched(browser, PHONE, **options) as visitor:
        page = opened(visitor, f"{server.url}/#key={server.credentials}")
        assert page.evaluate(SMALL_TARGETS) == []
        compose(page, "a still fox")
        generate(page)
        expect(viewer(page).get_by_role("link", name="Download")).to_be_visible()
        assert page.evaluate(PLAYS) > 0
        assert page.evaluate("document.querySelector('.viewer video').paused")
        assert page.evaluate(SMALL_TARGETS) == []
        assert serious_issues(page) == []
