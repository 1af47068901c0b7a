"""Connections that the proxy passes through, and the address of the server."""

import json
import ssl
import sys
from pathlib import Path

import pytest
import trustme

from keyreel.errors import KeyreelError
from keyreel.wrap.proxy import parse_server
from tests.wrap.programs import HTTPX_GET, echo_server, run_wrapped


@pytest.mark.slow
async def test_connections_to_other_hosts_are_not_changed(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with echo_server() as server, echo_server(tls) as other:
        code, out, err = await run_wrapped(
            server, sys.executable, "-c", HTTPX_GET, f"https://{other}/page", SSL_CERT_FILE=str(tmp_path / "ca.pem")
        )
    assert code == 0, err
    assert (json.loads(out)["host"], json.loads(out)["path"]) == (other, "/page")
    assert "    1  https://127.0.0.1 -> passed on unchanged" in err


@pytest.mark.slow
async def test_other_hosts_are_reached_through_the_upstream_proxy(tmp_path: Path) -> None:
    """One `keyreel wrap` inside another: the proxy of the inner one connects through the proxy of the outer one."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with echo_server() as server, echo_server(tls) as other:
        inner = ("-m", "keyreel", "wrap", "--server", server, "--", sys.executable, "-c", HTTPX_GET)
        code, out, err = await run_wrapped(
            server, sys.executable, *inner, f"https://{other}/x", SSL_CERT_FILE=str(tmp_path / "ca.pem")
        )
    assert code == 0, err
    assert json.loads(out)["path"] == "/x"


@pytest.mark.parametrize("server", ["ftp://a", "http://", "http://a/prefix", "http://[::1", "http://a:b"])
def test_invalid_server_addresses_are_refused(server: str) -> None:
    with pytest.raises(KeyreelError, match="is not the address of a server"):
        parse_server(server)
