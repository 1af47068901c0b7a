"""Uploads and submits on a disk of 24 MiB with 8 MiB to stay free: `python -m tests.server.low_disk FOLDER`."""

import asyncio
import base64
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.server.live import ENDPOINT, INPUT
from tests.server.storage_api import Api, initiate, open_api, part_url

MIB = 1024 * 1024
FLOOR = 8 * MIB
CONTENT = bytes(4 * MIB)
LOW = 507


async def chunks() -> AsyncIterator[bytes]:
    """A body of unknown length."""
    for start in range(0, len(CONTENT), MIB):
        yield CONTENT[start : start + MIB]


async def submit(api: Api, url: str) -> int:
    images = {**INPUT, "images": [{"image_url": url}]}
    return (await api.client.post(f"/queue/{ENDPOINT}", json=images, headers=api.auth())).status_code


def leave(folder: Path, free: int) -> None:
    """Fills the disk until `free` bytes are left."""
    ballast = folder / "ballast"
    ballast.unlink(missing_ok=True)
    ballast.write_bytes(bytes(shutil.disk_usage(folder).free - free))


async def check(api: Api, folder: Path) -> None:
    first, second, parts = await initiate(api), await initiate(api), await initiate(api, "initiate-multipart")
    assert (await api.client.put(first["upload_url"], content=CONTENT)).status_code == 200
    picture = f"data:image/png;base64,{base64.b64encode(CONTENT).decode()}"

    leave(folder, FLOOR + 3 * MIB)
    before = shutil.disk_usage(folder).free
    for content in (CONTENT, chunks()):
        assert (await api.client.put(second["upload_url"], content=content)).status_code == LOW
    assert (await api.client.put(part_url(parts["upload_url"], 1), content=CONTENT)).status_code == LOW
    assert await submit(api, picture) == LOW
    assert shutil.disk_usage(folder).free >= before - MIB // 4, "something is left of what was refused"
    part = (await api.client.put(part_url(parts["upload_url"], 1), content=CONTENT[: 2 * MIB])).json()
    complete = part_url(parts["upload_url"], "complete")
    assert (await api.client.post(complete, json={"parts": [part]})).status_code == LOW
    assert await submit(api, first["file_url"]) == 200

    leave(folder, FLOOR - MIB)
    assert await submit(api, first["file_url"]) == LOW
    refused = await api.client.post("/storage/upload/initiate", json={}, headers=api.auth())
    assert (refused.status_code, "almost full" in refused.json()["detail"]) == (LOW, True)
    assert (await api.client.get(first["file_url"])).content == CONTENT
    (request,) = (await api.client.get("/api/requests", headers=api.auth())).json()
    cancel = f"/queue/fal-ai/ltx-video-lora/requests/{request['id']}/cancel"
    assert (await api.client.put(cancel, headers=api.auth())).status_code == 200
    assert (await api.client.delete(f"/api/requests/{request['id']}", headers=api.auth())).status_code == 204

    (folder / "ballast").unlink()
    assert (await api.client.post(complete, json={"parts": [part]})).status_code == 200
    assert (await api.client.put(second["upload_url"], content=chunks())).status_code == 200


async def main(folder: Path) -> None:
    async with open_api(folder, min_free_bytes=FLOOR) as api:
        await check(api, folder)
    print("refused in time")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
