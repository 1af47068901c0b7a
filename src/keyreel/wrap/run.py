"""Runs one program inside the wrap."""

import asyncio
import shutil
import signal
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import certifi

from keyreel.certificates import join_bundles, make_authority, make_bundle
from keyreel.errors import KeyreelError
from keyreel.wrap.proxy import FAL_HOSTS, Proxy, connect

USUAL = Path(certifi.where())
PRELOAD = Path(__file__).parent / "preload.mjs"
NOT_FOUND = 127


async def run_wrapped(server: SplitResult, command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The program's exit status. Certificates and proxy are gone when it ends.

    Raises KeyreelError when the server cannot be reached: the program would try again and again for a minute.
    """
    await _check(server)
    with tempfile.TemporaryDirectory(prefix="keyreel-wrap-") as name:
        folder = Path(name)
        authority = make_authority(folder)
        served = authority.issue(folder, FAL_HOSTS)
        identity = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        identity.load_cert_chain(served.certificate, served.key)
        async with Proxy(server, identity, _upstream(environment)).listening() as port:
            wrapped = dict(environment) | _wrapping(server, port, authority.certificate, environment)
            return await _run(command, wrapped)


async def _check(server: SplitResult) -> None:
    url = server.geturl()
    try:
        _, writer = await connect(server)
    except ssl.SSLCertVerificationError as error:
        raise KeyreelError(
            f"The certificate of {url} is not trusted here ({error.verify_message}). "
            "Export SSL_CERT_FILE as `keyreel serve --tls` prints it."
        ) from None
    except OSError as error:
        raise KeyreelError(
            f"No server answers at {url} ({error.strerror or error}). "
            "Start one with `keyreel serve`, or name it with --server."
        ) from None
    writer.close()


async def _run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    program = shutil.which(command[0], path=environment.get("PATH"))
    if program is None:
        return NOT_FOUND
    process = await asyncio.create_subprocess_exec(program, *command[1:], env=environment)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Ctrl-C reaches the program by itself, as one of the terminal's group; it decides when to end.
        loop.add_signal_handler(number, _pass_on, process, number)
    return await process.wait()


def _pass_on(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if number == signal.SIGTERM and process.returncode is None:
        process.send_signal(number)


def _wrapping(server: SplitResult, port: int, authority: Path, environment: Mapping[str, str]) -> dict[str, str]:
    bundle = make_bundle(authority, Path(environment.get("SSL_CERT_FILE") or USUAL))
    proxy = f"http://127.0.0.1:{port}"
    options = f"{environment.get('NODE_OPTIONS', '')} --import {PRELOAD.as_uri()}"
    return {
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), proxy),
        # These replace a program's own list of authorities, so they hold the usual ones, too.
        **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), str(bundle)),
        # Node has a list of its own, to which this one is added: its calls go to the server, which may have a
        # certificate that only SSL_CERT_FILE vouches for.
        "NODE_EXTRA_CA_CERTS": str(_node_bundle(bundle, environment)),
        "NODE_OPTIONS": options.strip(),
        "KEYREEL_SERVER": server.geturl(),
    }


def _node_bundle(bundle: Path, environment: Mapping[str, str]) -> Path:
    more = environment.get("NODE_EXTRA_CA_CERTS")
    return join_bundles(bundle.with_name("node.pem"), bundle, Path(more)) if more else bundle


def _upstream(environment: Mapping[str, str]) -> SplitResult | None:
    proxy = environment.get("HTTPS_PROXY") or environment.get("https_proxy")
    return urlsplit(proxy if "//" in proxy else f"http://{proxy}") if proxy else None
