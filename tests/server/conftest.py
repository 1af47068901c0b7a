"""A server for all tests of this package, and an API in this process for tests of files and uploads."""

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import structlog

from tests.server.live import LiveServer, live_server
from tests.server.storage_api import KIB, TRUST, Api, open_api


@pytest.fixture(scope="package", autouse=True)
def quiet() -> Iterator[None]:
    """Silences the log: by default, structlog formats tracebacks for terminals, which takes seconds."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that may send webhooks to this machine, which is also its reverse proxy."""
    with live_server(tmp_path_factory.mktemp("server"), allow_hosts="127.0.0.1", trusted_proxies="127.0.0.1") as server:
        yield server


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    """A client with the user's key."""
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=20, trust_env=False, verify=TRUST) as client:
        yield client
    # A request that a test left running would block the worker.
    server.worker.paused = False
    server.cancel_all()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """The API in this process. Uploads are limited to 128 KiB."""
    limits = dict.fromkeys(("max_image_bytes", "max_video_bytes", "max_lora_bytes"), 128 * KIB)
    async with open_api(tmp_path, **limits) as api:
        yield api
