"""Calls to fal in each way that uvloop has. Prints the answers by the name of the way.

Run by tests/wrap/test_ways.py.
"""

import asyncio
import json
import socket

import aiohttp
import uvloop

HEAD = b"GET /a HTTP/1.1\r\nHost: queue.fal.run\r\nConnection: close\r\n\r\n"


async def by_aiohttp() -> str:
    async with aiohttp.ClientSession() as session, session.get("https://queue.fal.run/a") as answer:
        return await answer.text()


async def by_connection(**options: object) -> str:
    reader, writer = await asyncio.open_connection(ssl=True, **options)
    writer.write(HEAD)
    content = await reader.read()
    writer.close()
    return content.partition(b"\r\n\r\n")[2].decode()


async def by_socket() -> str:
    with socket.socket() as plain:
        plain.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plain, ("queue.fal.run", 443))
        return await by_connection(sock=plain.dup(), server_hostname="queue.fal.run")


async def other_hosts() -> str:
    """A connection to another host goes where it always went."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"host": "queue.fal.run"}')
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        reader, writer = await asyncio.open_connection("localhost", server.sockets[0].getsockname()[1])
        content = await reader.read()
        writer.close()
        return content.decode()


WAYS = {
    "aiohttp": by_aiohttp,
    "connection": lambda: by_connection(host="queue.fal.run", port=443),
    "socket": by_socket,
    "other": other_hosts,
}
print(json.dumps({name: json.loads(uvloop.run(call())) for name, call in WAYS.items()}))
