"""fal-mcp-server, called as an assistant calls it: by the Model Context Protocol, over pipes."""

import asyncio
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from report import check, expect, lacks

MODEL = "fal-ai/ltx-video-lora/image-to-video"
PICTURE = "data:image/png;base64,YSBwaWN0dXJl"


async def call(tool: str, **arguments: Any) -> str:
    """Starts the server, calls one of its tools, and returns the address in its answer."""
    command = str(Path(sys.executable).with_name("fal-mcp"))
    server = StdioServerParameters(command=command, env=dict(os.environ))
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        answer = await session.call_tool(tool, arguments)
    text = "".join(part.text for part in answer.content)
    found = re.search(r"https://\S+", text)
    expect(found, text)
    return found[0]


def video_of(prompt: str, picture: str) -> str:
    return asyncio.run(call("generate_video_from_image", model=MODEL, prompt=prompt, image_url=picture))


made: dict[str, str] = {}


def subscribe() -> None:
    made["video"] = video_of("a fox", PICTURE)


def download() -> None:
    expect(httpx.get(made["video"]).content == b"the video", made)


def upload() -> None:
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        picture.write_bytes(b"a picture")
        made["picture"] = asyncio.run(call("upload_file", file_path=str(picture)))
    expect(httpx.get(made["picture"]).content == b"a picture", made)


lacks("submit", "status", "result", "cancel")
check("subscribe", subscribe)
check("download", download)
check("upload", upload)
check("file input", lambda: video_of("a file", made["picture"]))
