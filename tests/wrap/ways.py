"""One call to fal for each of Python's ways to make one. Prints the answers by the name of the way.

Run by tests/wrap/test_ways.py behind `keyreel wrap`. None of these ways uses the proxy of the environment.
"""

import asyncio
import http.client
import json
import socket
import ssl
import subprocess
import sys
import urllib.request

import aiohttp
import httpx
import requests
import urllib3

URL = "https://queue.fal.run/a"
HEAD = b"GET /a HTTP/1.1\r\nHost: queue.fal.run\r\nConnection: close\r\n\r\n"
UNCHECKED = ssl.create_default_context()
UNCHECKED.check_hostname = False
CHILD = f"import httpx; print(httpx.get({URL!r}, trust_env=False).text)"


def by_requests() -> str:
    session = requests.Session()
    session.trust_env = False
    return session.get(URL).text


def by_http_client() -> str:
    connection = http.client.HTTPSConnection("queue.fal.run")
    connection.request("GET", "/a")
    return connection.getresponse().read().decode()


def by_urllib() -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(URL) as answer:
        return bytes(answer.read()).decode()


def by_socket() -> str:
    with socket.socket() as plain:
        plain.connect(("queue.fal.run", 443))
        with ssl.create_default_context().wrap_socket(plain, server_hostname="queue.fal.run") as secure:
            secure.sendall(HEAD)
            return b"".join(iter(lambda: secure.recv(4096), b"")).partition(b"\r\n\r\n")[2].decode()


async def by_aiohttp() -> str:
    async with aiohttp.ClientSession(trust_env=False) as session, session.get(URL) as answer:
        return await answer.text()


async def by_asyncio() -> str:
    reader, writer = await asyncio.open_connection("queue.fal.run", 443, ssl=True)
    writer.write(HEAD)
    content = await reader.read()
    writer.close()
    return content.partition(b"\r\n\r\n")[2].decode()


def by_httpx() -> str:
    with httpx.Client(trust_env=False) as client:
        return client.get(URL).text


async def by_async_httpx() -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.get(URL)).text


def by_old_lookup() -> str:
    connection = http.client.HTTPSConnection(socket.gethostbyname("queue.fal.run"), context=UNCHECKED)
    connection.request("GET", "/a", headers={"Host": "queue.fal.run"})
    return connection.getresponse().read().decode()


def by_child() -> str:
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    WAYS = {
        "proxy": lambda: httpx.get(URL).text,
        "httpx": by_httpx,
        "async httpx": lambda: asyncio.run(by_async_httpx()),
        "requests": by_requests,
        "urllib3": lambda: urllib3.PoolManager().request("GET", URL).data.decode(),
        "http.client": by_http_client,
        "urllib": by_urllib,
        "socket": by_socket,
        "gethostbyname": by_old_lookup,
        "aiohttp": lambda: asyncio.run(by_aiohttp()),
        "asyncio": lambda: asyncio.run(by_asyncio()),
        "child": by_child,
    }
    print(json.dumps({name: json.loads(call()) for name, call in WAYS.items()}))
