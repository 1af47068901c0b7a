"""A browser, and a server whose worker runs each request as its prompt says."""

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
    # A request that a test left running would block the worker.
    server.worker.paused = False
    server.cancel_all()


@pytest.fixture
def page(visitor: BrowserContext, server: LiveServer) -> Page:
    """The playground, with the user signed in."""
    return opened(visitor, f"{server.url}/#key={server.credentials}")
