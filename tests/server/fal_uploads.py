"""A program that uploads with fal's own client in all its ways and prints the URLs of the files.

It runs in another process, because that client leaves connections open. It changes only the client's constants: the
hosts, which a test cannot reach, and the size of parts, which is larger than a test needs.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

import fal_client
import fal_client.client

PART = 16 * 1024
LARGE = b"".join(number.to_bytes(4, "big") for number in range(3 * PART + 5))


async def upload_asynchronously(client: fal_client.AsyncClient) -> dict[str, str]:
    return {
        "asynchronous": await client.upload(b"a cat", "image/png"),
        "asynchronous, in parts": await client.upload(LARGE, "video/mp4"),
    }


def upload(client: fal_client.SyncClient, folder: Path) -> dict[str, str]:
    (folder / "my cat.png").write_bytes(b"a cat")
    (folder / "cat.mp4").write_bytes(LARGE)
    hidden = fal_client.StorageSettings(expires_in="1h", initial_acl=fal_client.StorageACL(default="hide"))
    return {
        "content": client.upload(b"a cat", "image/png", "cat.png"),
        "file": client.upload_file(folder / "my cat.png"),
        "repository of old": client.upload(b"a cat", "image/png", "cat.png", repository="fal"),
        "content, in parts": client.upload(LARGE, "video/mp4"),
        "file, in parts": client.upload_file(folder / "cat.mp4"),
        "hidden": client.upload(b"a cat", "image/png", lifecycle=hidden),
    }


def main(url: str, key: str) -> None:
    fal_client.client.REST_URL = fal_client.client.CDN_URL = url
    fal_client.client.MULTIPART_THRESHOLD = fal_client.client.MULTIPART_CHUNK_SIZE = PART
    with tempfile.TemporaryDirectory() as folder:
        urls = upload(fal_client.SyncClient(key=key), Path(folder))
    urls |= asyncio.run(upload_asynchronously(fal_client.AsyncClient(key=key)))
    print(json.dumps(urls))


if __name__ == "__main__":
    main(*sys.argv[1:])
