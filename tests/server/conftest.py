"""One server for the tests of a module."""

import logging
from collections.abc import Iterator

import httpx
import pytest
import structlog

from tests.server.live import LiveServer, live_server


@pytest.fixture(scope="package", autouse=True)
def quiet() -> Iterator[None]:
    """Not configured, structlog draws tracebacks for people, which takes seconds. Tests elsewhere read the log."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    # Where receivers of webhooks are.
    with live_server(tmp_path_factory.mktemp("server"), allow_hosts="127.0.0.1") as server:
        yield server


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    """As the user."""
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=20, trust_env=False) as client:
        yield client
    # What a test left running would keep the worker from the next one.
    server.worker.paused = False
    server.cancel_all()
