"""The API in this process, without a port, for tests of files and uploads."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from structlog.testing import capture_logs

from keyreel.server.app import create_app
from keyreel.server.dependencies import Services
from keyreel.server.startup import open_services
from keyreel.settings import Settings
from keyreel.store.records import File, NewFile, NewKey
from tests.store.template import put_database

KIB = 1024
URL = "http://keyreel.test"
TRUST = ssl.create_default_context()
"""Made once, because clients take 30 ms to make their own."""


@dataclass
class Api:
    """The application, a client, and two keys of users."""

    app: FastAPI
    services: Services
    client: httpx.AsyncClient
    key: NewKey
    other: NewKey

    def auth(self, key: NewKey | None = None) -> dict[str, str]:
        key = key or self.key
        return {"Authorization": f"Key {key.key.id}:{key.secret}"}

    def later(self, seconds: float) -> None:
        """Moves the clock of signed links forward."""
        now = self.services.links.clock()
        links = replace(self.services.links, clock=lambda: now + seconds)
        self.services = self.app.state.services = replace(self.services, links=links)

    async def add(self, content: bytes, **values: Any) -> str:
        """Stores a file and returns its URL."""
        fields = {"key_id": self.key.key.id, "object": "a/b", "name": "cat.mp4", "content_type": "video/mp4"}
        file = await self.services.store.files.add(NewFile(**{**fields, "size": len(content), **values}))
        await self.services.objects.put(file.object, content)
        return self.services.links.file_url(file)

    async def file(self, url: str) -> File | None:
        ref = self.services.links.file_of(url)
        assert ref is not None
        return await self.services.store.files.get(ref.id)


@asynccontextmanager
async def open_api(folder: Path, **settings: Any) -> AsyncIterator[Api]:
    put_database(folder)
    chosen = Settings(data_dir=folder, cache_dir=folder / "cache", **settings)
    with capture_logs():  # by default, structlog formats tracebacks for terminals, which takes seconds
        async with open_services(chosen, URL) as services:
            app = create_app(services)
            key, other = await services.store.keys.create("one"), await services.store.keys.create("other")
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=URL, verify=TRUST) as client:
                yield Api(app, services, client, key, other)


async def initiate(api: Api, kind: str = "initiate", headers: dict[str, str] | None = None, **body: Any) -> Any:
    """Begins an upload. Returns its URLs."""
    answer = await api.client.post(
        f"/storage/upload/{kind}?storage_type=fal-cdn-v3",
        json={"content_type": "image/png", "file_name": "cat.png", **body},
        headers=api.auth() | (headers or {}),
    )
    assert answer.status_code == 200
    return answer.json()


async def upload_token(api: Api) -> dict[str, str]:
    """Returns the header with an upload token."""
    answer = await api.client.post("/storage/auth/token?storage_type=fal-cdn-v3", json={}, headers=api.auth())
    return {"Authorization": f"{answer.json()['token_type']} {answer.json()['token']}"}


def part_url(upload_url: str, part: int | str) -> str:
    """Returns the URL of a part, as fal's JavaScript client builds it."""
    path, _, query = upload_url.partition("?")
    return f"{path}/{part}?{query}"
