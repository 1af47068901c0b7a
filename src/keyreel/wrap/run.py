"""Runs one program with its calls to fal redirected."""

import asyncio
import json
import os
import shutil
import signal
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import certifi

from keyreel.errors import KeyreelError
from keyreel.fal.hosts import DOMAINS
from keyreel.net.certificates import join_bundles, make_authority, make_bundle
from keyreel.wrap.calls import Calls
from keyreel.wrap.identity import make_identity
from keyreel.wrap.proxy import Proxy
from keyreel.wrap.standin import StandIn, connect

DEFAULT_AUTHORITIES = Path(certifi.where())
HOOKS = Path(__file__).parent / "hooks"
NOT_FOUND = 127
"""The exit status of a shell for a command that it cannot find."""


async def run_wrapped(server: SplitResult, command: Sequence[str], environment: Mapping[str, str], calls: Calls) -> int:
    """Runs the program and returns its exit status. Certificates and proxy exist only while it runs.

    Raises KeyreelError when the server cannot be reached: otherwise the program would retry for a minute.
    """
    await _check_reachable(server)
    with tempfile.TemporaryDirectory(prefix="keyreel-wrap-") as name:
        folder = Path(name)
        authority = make_authority(folder)
        identity = make_identity(authority, folder)
        async with (
            StandIn(server, identity, calls).listening() as standin,
            Proxy(standin, calls, _upstream(environment)).listening() as proxy,
        ):
            changes = _redirecting_variables(standin, proxy, authority.certificate, environment)
            return await _run(command, dict(environment) | changes)


async def _check_reachable(server: SplitResult) -> None:
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
        # The terminal sends Ctrl-C to the program, too, and the program decides when to end.
        loop.add_signal_handler(number, _forward_signal, process, number)
    return await process.wait()


def _forward_signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if number == signal.SIGTERM and process.returncode is None:
        process.send_signal(number)


def _redirecting_variables(standin: int, port: int, authority: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment variables that redirect calls to fal."""
    bundle = make_bundle(authority, Path(environment.get("SSL_CERT_FILE") or DEFAULT_AUTHORITIES))
    proxy = f"http://127.0.0.1:{port}"
    options = f"{environment.get('NODE_OPTIONS', '')} --require {json.dumps(str(HOOKS / 'preload.cjs'))}"
    path = [str(HOOKS / "python"), *filter(None, [environment.get("PYTHONPATH")])]
    return {
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), proxy),
        # These replace a program's own list of authorities, so the bundle contains the usual ones, too.
        **dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), str(bundle)),
        # Node adds this bundle to its own list.
        "NODE_EXTRA_CA_CERTS": str(_node_bundle(bundle, environment)),
        "NODE_OPTIONS": options.strip(),
        "PYTHONPATH": os.pathsep.join(path),
        "KEYREEL_WRAP": json.dumps({"port": standin, "domains": DOMAINS, "authority": str(authority)}),
    }


def _node_bundle(bundle: Path, environment: Mapping[str, str]) -> Path:
    extra = environment.get("NODE_EXTRA_CA_CERTS")
    return join_bundles(bundle.with_name("node.pem"), bundle, Path(extra)) if extra else bundle


def _upstream(environment: Mapping[str, str]) -> SplitResult | None:
    proxy = environment.get("HTTPS_PROXY") or environment.get("https_proxy")
    return urlsplit(proxy if "//" in proxy else f"http://{proxy}") if proxy else None
