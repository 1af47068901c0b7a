"""Certificates in real TLS handshakes, their renewal, and the permissions of the keys."""

import asyncio
import os
import ssl
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import trustme

from keyreel.net import certificates
from keyreel.net.certificates import LIFETIME, Certificate, make_authority, make_bundle, server_certificate

NAMES = ("localhost", "127.0.0.1", "::1", "videos.example")


async def handshake(served: Certificate, trusted: Path, name: str) -> None:
    """Connects over TLS to a server of that name. Raises SSLCertVerificationError when the client does not trust it."""
    identity = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    identity.load_cert_chain(served.certificate, served.key)

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=identity) as server:
        port = server.sockets[0].getsockname()[1]
        client = ssl.create_default_context(cafile=trusted)
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        writer.close()
        await writer.wait_closed()


@pytest.fixture
def open_umask() -> Iterator[None]:
    """New files are readable by everyone unless their mode says otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("name", NAMES)
async def test_a_client_that_trusts_the_authority_accepts_each_name(tmp_path: Path, name: str) -> None:
    authority = make_authority(tmp_path)
    await handshake(authority.issue(tmp_path, NAMES), authority.certificate, name)


@pytest.mark.parametrize("name", ["127.0.0.2", "other.example", "sub.videos.example"])
async def test_a_client_refuses_other_names(tmp_path: Path, name: str) -> None:
    authority = make_authority(tmp_path)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        await handshake(authority.issue(tmp_path, NAMES), authority.certificate, name)


async def test_a_client_that_trusts_another_authority_refuses(tmp_path: Path) -> None:
    served = make_authority(tmp_path).issue(tmp_path, NAMES)
    (tmp_path / "other").mkdir()
    other = make_authority(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(served, other.certificate, "localhost")


async def test_a_bundle_trusts_the_authority_and_the_defaults(tmp_path: Path) -> None:
    authority, public = make_authority(tmp_path), trustme.CA()
    public.cert_pem.write_to_path(tmp_path / "public.pem")
    bundle = make_bundle(authority.certificate, tmp_path / "public.pem")
    issued, other = public.issue_cert("localhost"), Certificate(tmp_path / "other.pem", tmp_path / "other.key")
    issued.cert_chain_pems[0].write_to_path(other.certificate)
    issued.private_key_pem.write_to_path(other.key)
    for served in (authority.issue(tmp_path, NAMES), other):
        await handshake(served, bundle, "localhost")


async def test_a_servers_certificate_is_kept_while_it_covers_the_names(tmp_path: Path) -> None:
    served, authority = server_certificate(tmp_path / "tls", NAMES)
    before = contents(served, authority)
    for names in (NAMES, NAMES[:1]):
        assert contents(*server_certificate(tmp_path / "tls", names)) == before
    await handshake(served, authority, "localhost")


async def test_a_servers_certificate_is_renewed_for_a_new_name(tmp_path: Path) -> None:
    before = contents(*server_certificate(tmp_path / "tls", NAMES))
    served, authority = server_certificate(tmp_path / "tls", (*NAMES, "new.example"))
    assert contents(served, authority) != before
    await handshake(served, authority, "new.example")


@pytest.mark.parametrize(("margin", "renewed"), [(timedelta(days=1), False), (-timedelta(days=1), True)])
def test_a_servers_certificate_is_renewed_before_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, margin: timedelta, renewed: bool
) -> None:
    before = contents(*server_certificate(tmp_path / "tls", NAMES))
    monkeypatch.setattr(certificates, "RENEWAL", LIFETIME - margin)
    assert (contents(*server_certificate(tmp_path / "tls", NAMES)) != before) is renewed


async def test_a_servers_certificate_without_its_key_is_renewed(tmp_path: Path) -> None:
    served, _ = server_certificate(tmp_path / "tls", NAMES)
    served.key.unlink()
    served, authority = server_certificate(tmp_path / "tls", NAMES)
    await handshake(served, authority, "localhost")


@pytest.mark.usefixtures("open_umask")
def test_only_the_owner_can_read_keys(tmp_path: Path) -> None:
    served, _ = server_certificate(tmp_path / "tls", NAMES)
    signer = make_authority(tmp_path).issue_signer(tmp_path)
    assert mode(served.key) == mode(signer.key) == 0o600
    assert mode(tmp_path / "tls") == 0o700
    server_certificate(tmp_path / "tls", (*NAMES, "new.example"))
    assert mode(served.key) == 0o600


def contents(served: Certificate, authority: Path) -> list[bytes]:
    return [path.read_bytes() for path in (served.certificate, served.key, authority)]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
