"""A browser, and a server whose worker does what the prompt says."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.server.live import LiveServer, live_server
from tests.web.browser import chromium, opened, watched
from tests.web.films import film, stored


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("server")
    with live_server(folder) as server:
        server.worker.video = stored(server, film(folder / "film.mp4"))
        yield server


@pytest.fixture
def visitor(browser: Browser, server: LiveServer) -> Iterator[BrowserContext]:
    with watched(browser) as context:
        yield context
    # What a test left running would keep the worker from the next one.
    server.worker.paused = False
    server.cancel_all()


@pytest.fixture
def page(visitor: BrowserContext, server: LiveServer) -> Page:
    """As the user."""
    return opened(visitor, f"{server.url}/#key={server.credentials}")
