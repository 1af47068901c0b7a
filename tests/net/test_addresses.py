"""Which addresses the policy permits, and that a guarded session connects to no others."""

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from keyreel.net.addresses import PRIVATE_IPV4, AddressPolicy, RefusedAddressError, guarded_session

PUBLIC_ONLY = AddressPolicy()


class FixedResolver(AbstractResolver):
    """Resolves every name to the same addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None:
        pass


private_ipv4 = st.sampled_from(PRIVATE_IPV4).flatmap(
    lambda network: st.integers(int(network[0]), int(network[-1])).map(IPv4Address)
)


def transition_forms(address: IPv4Address) -> dict[str, IPv6Address]:
    """Returns the IPv6 addresses that embed an IPv4 address, by the name of the form."""
    value = int(address)
    return {
        "mapped": IPv6Address((0xFFFF << 32) | value),
        "compatible": IPv6Address(value),
        "translated": IPv6Address((0xFFFF << 48) | value),
        "NAT64": IPv6Address(int(IPv6Address("64:ff9b::")) | value),
        "local NAT64": IPv6Address(int(IPv6Address("64:ff9b:1::")) | value),
        "6to4": IPv6Address((0x2002 << 112) | (value << 80) | 1),
        "Teredo": IPv6Address((0x20010000 << 96) | (value ^ 0xFFFFFFFF)),
        "Teredo server": IPv6Address((0x20010000 << 96) | (value << 64)),
        "ISATAP": IPv6Address((0xFE80 << 112) | (0x5EFE << 32) | value),
    }


@given(private_ipv4)
def test_no_form_of_a_private_ipv4_address_is_permitted(address: IPv4Address) -> None:
    assert not PUBLIC_ONLY.permits(str(address))
    for form in transition_forms(address).values():
        assert not PUBLIC_ONLY.permits(str(form))


@given(st.ip_addresses())
def test_the_policy_is_never_laxer_than_the_standard_library(address: IPv4Address | IPv6Address) -> None:
    if PUBLIC_ONLY.permits(str(address)):
        plain = getattr(address, "ipv4_mapped", None) or address
        assert plain.is_global
        assert not plain.is_multicast
        assert not plain.is_reserved


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.1.2.3", "10.0.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254",
        "ff02::1", "2001:db8::1", "100::1", "5f00::1", "::ffff:169.254.169.254", "64:ff9b::8.8.8.8",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not PUBLIC_ONLY.permits(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8"]
)
def test_public_addresses_are_permitted(address: str) -> None:
    assert PUBLIC_ONLY.permits(address)


def test_addresses_and_names_on_the_allow_list_are_permitted() -> None:
    policy = AddressPolicy(("10.1.0.0/16", "127.0.0.1", "fd00::/8", "Minio.internal"))
    assert policy.permits("10.1.2.3")
    assert policy.permits("::ffff:10.1.2.3")
    assert policy.permits("127.0.0.1")
    assert policy.permits("fd00::7")
    assert not policy.permits("10.2.0.1")
    assert not policy.permits("127.0.0.2")
    assert policy.permits_host("minio.INTERNAL.")
    assert not policy.permits_host("internal")


@given(st.ip_addresses())
def test_a_policy_may_permit_everything(address: IPv4Address | IPv6Address) -> None:
    assert AddressPolicy.everything().permits(str(address))


@pytest.mark.parametrize("entry", ["", "10.0.0.256", "10.0.0.0/33", "fd00::/200", "http://a.b", "*.internal", "a b"])
def test_an_entry_that_is_no_network_and_no_name_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="neither a network nor a host name"):
        AddressPolicy((entry,))


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


def hello_app() -> web.Application:
    app = web.Application()
    app.router.add_get("/", hello)
    return app


def server() -> TestServer:
    return TestServer(hello_app())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f000001", "[::ffff:127.0.0.1]", "[::1]"])
async def test_every_spelling_of_this_machine_is_refused(host: str) -> None:
    async with server() as here, guarded_session(PUBLIC_ONLY, 5) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.get(f"http://{host}:{here.port}/")
        assert isinstance(caught.value.os_error, RefusedAddressError)


@pytest.mark.parametrize("host", ["2130706433", "0177.0.0.1", "127.1", "0"])
async def test_spellings_that_are_no_valid_host_are_refused(host: str) -> None:
    async with server() as here, guarded_session(PUBLIC_ONLY, 5) as session:
        with pytest.raises(aiohttp.InvalidURL):
            await session.get(f"http://{host}:{here.port}/")


async def test_a_name_that_resolves_to_this_machine_is_refused() -> None:
    resolver = FixedResolver("127.0.0.1", "::1", "10.0.0.1")
    async with server() as here, guarded_session(PUBLIC_ONLY, 5, resolver) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.get(f"http://example.com:{here.port}/")
        assert isinstance(caught.value.os_error, RefusedAddressError)
        assert "127.0.0.1" not in str(caught.value.os_error)


async def test_a_name_that_later_resolves_to_this_machine_is_refused() -> None:
    """DNS rebinding: the first lookup returns a permitted address, the second one this machine."""
    resolver = FixedResolver("127.0.0.2")
    policy = AddressPolicy(("127.0.0.2",))
    async with TestServer(hello_app(), host="127.0.0.2") as there, guarded_session(policy, 5, resolver) as session:
        url = f"http://example.com:{there.port}/"
        async with session.get(url, headers={"Connection": "close"}) as response:
            assert await response.text() == "hello"
        resolver.addresses = ("127.0.0.1",)
        assert isinstance(session.connector, aiohttp.TCPConnector)
        session.connector.clear_dns_cache()
        with pytest.raises(aiohttp.ClientConnectorError) as caught:
            await session.get(url)
        assert isinstance(caught.value.os_error, RefusedAddressError)


async def test_each_address_of_a_name_is_checked() -> None:
    """The refused address is skipped, and the permitted one answers."""
    policy = AddressPolicy(("127.0.0.1",))
    async with server() as here, guarded_session(policy, 5, FixedResolver("127.0.0.2", "127.0.0.1")) as session:
        response = await session.get(f"http://example.com:{here.port}/")
        assert await response.text() == "hello"


async def test_an_allowed_name_may_resolve_to_any_address() -> None:
    policy = AddressPolicy(("minio.internal",))
    async with server() as here, guarded_session(policy, 5, FixedResolver("127.0.0.1")) as session:
        response = await session.get(f"http://minio.internal:{here.port}/")
        assert await response.text() == "hello"


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    policy = AddressPolicy(("127.0.0.1",))
    async with server() as here, guarded_session(policy, 5) as session:
        response = await session.get(here.make_url("/"))
        assert await response.text() == "hello"


def test_a_network_may_be_written_as_one_of_its_addresses() -> None:
    assert AddressPolicy(("10.1.2.3/8",)).networks == (ipaddress.ip_network("10.0.0.0/8"),)
