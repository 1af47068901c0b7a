"""The secret of an installation is replaced, process by process, and no valid link is refused."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from keyreel.errors import KeyreelError
from tests.server.live import APP, ENDPOINT
from tests.server.storage_api import Api, initiate, open_api, upload_token

OLD, NEW = "the old secret of the fleet", "the new secret of the fleet"
WEBHOOK = "https://user:s3cret@example.com/hook"
PAGE = {"X-Keyreel-Page": "1"}


@dataclass(frozen=True, slots=True)
class Issued:
    """What a process signed and encrypted."""

    key: dict[str, str]
    file_url: str
    upload_url: str
    upload_token: dict[str, str]
    token: str
    share: str
    cookie: str
    webhook: str

    @classmethod
    async def by(cls, api: Api) -> "Issued":
        links = api.services.links
        urls = await initiate(api)
        await api.client.post("/api/session", headers=api.auth())
        ((name, value),) = api.client.cookies.items()
        api.client.cookies.clear()
        submitted = await api.client.post(f"/queue/{ENDPOINT}", json={"prompt": "a fox"}, headers=api.auth())
        return cls(
            key=api.auth(),
            file_url=await api.add(b"video", object=f"out/{urls['file_url'][-40:]}"),
            upload_url=urls["upload_url"],
            upload_token=await upload_token(api),
            token=links.issue_token(api.key.key, (APP.split("/")[1],), 60),
            share=links.share_token(submitted.json()["request_id"]),
            cookie=f"{name}={value}",
            webhook=api.services.webhook_urls.seal(WEBHOOK),
        )

    async def accepted_by(self, api: Api) -> list[bool]:
        """Returns whether each of them is valid."""
        call, links = api.client.request, api.services.links
        status = f"/{APP}/requests/{links.open_share_token(self.share)}/status"
        page = PAGE | {"Cookie": self.cookie}
        answers = (
            await call("GET", self.file_url),
            await call("PUT", self.upload_url, content=b"picture"),
            await call("POST", "/files/upload", content=b"picture", headers=self.upload_token),
            await call("GET", status, headers={"Authorization": f"Bearer {self.token}"}),
            await call("GET", "/api/requests", headers=page),
        )
        webhook = api.services.webhook_urls.masked(self.webhook) == "https://***@example.com/hook"
        return [*(answer.is_success for answer in answers), webhook]


@asynccontextmanager
async def process(folder: Path, secret: str | None, *accepted: str, **settings: Any) -> AsyncIterator[Api]:
    async with open_api(folder, secret=secret, accepted_secrets=", ".join(accepted), **settings) as api:
        yield api


async def issued_by(folder: Path, secret: str | None, *accepted: str) -> Issued:
    async with process(folder, secret, *accepted) as api:
        return await Issued.by(api)


async def accepts(issued: Issued, folder: Path, secret: str | None, *accepted: str) -> set[bool]:
    async with process(folder, secret, *accepted) as api:
        return set(await issued.accepted_by(api))


@pytest.mark.slow
async def test_an_accepted_secret_keeps_everything_valid_until_it_is_withdrawn(tmp_path: Path) -> None:
    issued = await issued_by(tmp_path, OLD)
    assert await accepts(issued, tmp_path, NEW, "yet another old secret", OLD) == {True}
    assert await accepts(issued, tmp_path, NEW) == {False}


@pytest.mark.slow
async def test_keys_in_the_data_folder_stay_valid_when_a_secret_is_set(tmp_path: Path) -> None:
    issued = await issued_by(tmp_path, None)
    assert await accepts(issued, tmp_path, NEW) == {True}
    for file in tmp_path.glob("*.key"):
        file.unlink()
    assert await accepts(issued, tmp_path, NEW) == {False}


async def test_a_new_secret_is_refused_while_others_do_not_accept_it(tmp_path: Path) -> None:
    await issued_by(tmp_path, OLD)
    with pytest.raises(KeyreelError, match=r"KEYREEL_SECRET differs .* see docs/runbook.md"):
        await issued_by(tmp_path, NEW)
    with pytest.raises(KeyreelError, match="KEYREEL_ACCEPTED_SECRETS needs 16 characters"):
        await issued_by(tmp_path, OLD, "short")


@pytest.mark.slow
async def test_processes_accept_each_other_at_every_step_of_a_change(fleet_url: str, tmp_path: Path) -> None:
    """As in docs/runbook.md: first every process accepts the new secret, then each signs with it in its turn."""
    fleet = {"database_url": fleet_url, "object_store": str(tmp_path / "objects")}
    steps = ((OLD,), (OLD, NEW), (NEW, OLD))
    for before, after in pairwise(steps):
        async with (
            process(tmp_path / "one", *before, **fleet) as one,
            process(tmp_path / "two", *after, **fleet) as two,
            process(tmp_path / "three", *before, **fleet),  # one that has not changed may restart
        ):
            for signer, reader in ((one, two), (two, one)):
                assert all(await (await Issued.by(signer)).accepted_by(reader)), (before, after)
