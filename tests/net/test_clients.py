import ipaddress

import pytest

from keyreel.errors import KeyreelError
from keyreel.net.clients import client_of, is_within, parse_networks


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1%eth0", "2001:db8:1:2::/64"),
        ("", ""),
        ("made-up", "made-up"),
    ],
)
def test_a_client_is_its_address_or_its_network(host: str, client: str) -> None:
    assert client_of(host) == client


def test_proxies_are_addresses_and_networks() -> None:
    networks = parse_networks(" 127.0.0.1, 10.0.0.0/8 ,fd00::/8,", "NAME")
    assert networks == tuple(map(ipaddress.ip_network, ("127.0.0.1/32", "10.0.0.0/8", "fd00::/8")))
    hosts = ("127.0.0.1", "127.0.0.2", "::ffff:10.1.2.3", "fd00::1", "x")
    assert [host for host in hosts if is_within(host, networks)] == ["127.0.0.1", "::ffff:10.1.2.3", "fd00::1"]


@pytest.mark.parametrize("text", ["proxy.example", "10.0.0.1/8", "127.0.0.1;::1"])
def test_what_is_no_network_is_named(text: str) -> None:
    with pytest.raises(KeyreelError, match=r"^KEYREEL_TRUSTED_PROXIES: '?.+\.$"):
        parse_networks(text, "KEYREEL_TRUSTED_PROXIES")
