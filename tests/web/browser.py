"""Debian's Chromium, the actions of a visitor, and the checks that every page must pass."""

import base64
import mimetypes
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from keyreel.server.routes.page import FOLDER

ROOT = Path(__file__).parents[2]
AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
TIMEOUT = 30_000
"""Milliseconds."""
ELSEWHERE = "studio.test"
"""This machine, by a name for which browsers do not trust plain HTTP: they treat it like another machine."""
DESKTOP = (1440, 900)
PHONE = (390, 844)
DROP = """([selector, files, frame]) => {
  const target = document.querySelector(selector);
  const box = target.getBoundingClientRect();
  const transfer = new DataTransfer();
  for (const [name, type, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  const clientX = box.left + ((frame + 0.5) / 89) * box.width;
  const options = { dataTransfer: transfer, bubbles: true, cancelable: true, clientX, clientY: box.top + 40 };
  for (const name of ["dragenter", "dragover", "drop"]) target.dispatchEvent(new DragEvent(name, options));
}"""
"""Drops files on an element; on the timeline at a frame of a video of 89 frames."""

expect.set_options(TIMEOUT)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Starts the browser. Skips the test when Chromium or the built page is missing."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is not installed: the playground is not tested in a browser")
    if not (FOLDER / "index.html").exists():
        pytest.skip("the page is not built (make page): the playground is not tested")
    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root.
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        arguments.append(f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1")
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@contextmanager
def watched(browser: Browser, size: tuple[int, int] = DESKTOP, **options: Any) -> Iterator[BrowserContext]:
    """A browser session. Its pages may not violate the security policy, throw, or call another server."""
    viewport: Any = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, **options)
    context.set_default_timeout(TIMEOUT)
    problems: list[str] = []
    hosts: set[str] = set()
    context.on("console", lambda line: problems.append(line.text) if "Security Policy" in line.text else None)
    context.on("weberror", lambda error: problems.append(str(error.error)))
    context.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or ""))
    yield context
    context.close()
    assert problems == []
    assert hosts <= {"127.0.0.1", "localhost", ELSEWHERE, ""}


def opened(context: BrowserContext, url: str) -> Page:
    """Opens the playground and waits until it is ready."""
    page = context.new_page()
    page.goto(url)
    expect(page.get_by_role("textbox", name="Prompt", exact=True)).to_be_visible()
    return page


def compose(page: Page, prompt: str) -> None:
    page.get_by_role("textbox", name="Prompt", exact=True).fill(prompt)


def generate(page: Page) -> None:
    page.get_by_role("button", name="Generate").click()
    page.wait_for_url(re.compile("#/r/"))


def viewer(page: Page) -> Locator:
    return page.get_by_role("region", name="Video")


def show_code(page: Page) -> None:
    """Opens the draft as code."""
    page.locator(".go").get_by_role("button", name="Code").click()


def set_number(page: Page, name: str, value: int) -> None:
    field = page.get_by_role("spinbutton", name=name, exact=True)
    field.fill(str(value))
    field.press("Tab")


def add_files(page: Page, *paths: Path) -> None:
    """Adds files to the timeline and waits until they are uploaded."""
    page.locator(".timeline input[type=file]").first.set_input_files([*paths])
    for path in paths:
        expect(page.get_by_role("slider", name=path.name)).to_be_visible()
    expect(page.locator(".timeline progress")).to_have_count(0)


def drop(page: Page, frame: int, *paths: Path, on: str = ".track") -> None:
    """Drops files on the timeline, or on another element."""
    files = [
        (path.name, mimetypes.guess_type(path.name)[0] or "", base64.b64encode(path.read_bytes()).decode())
        for path in paths
    ]
    page.evaluate(DROP, [on, files, frame])


def serious_issues(page: Page) -> list[str]:
    """Returns the serious and critical issues that axe-core finds."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{issue['id']}: {node['html'][:160]}"
        for issue in found["violations"]
        if issue["impact"] in ("serious", "critical")
        for node in issue["nodes"]
    ]
