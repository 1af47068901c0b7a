"""Who a client is, as far as its address tells, and which addresses belong to the operator's reverse proxies."""

import ipaddress
from functools import lru_cache

from keyreel.errors import KeyreelError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_IPV6_PREFIX = 64
"""Bits. One customer of a provider has at least a network of this size, so its addresses count as one."""


def parse_networks(text: str, setting: str) -> tuple[Network, ...]:
    """Parses addresses and networks (CIDR), comma-separated. Raises KeyreelError, which names the setting."""
    try:
        return tuple(ipaddress.ip_network(entry.strip()) for entry in text.split(",") if entry.strip())
    except ValueError as error:
        raise KeyreelError(f"{setting}: {error}.") from None


@lru_cache(4096)
def client_of(host: str) -> str:
    """Returns the name under which the calls from `host` are counted: its address, or its network in IPv6."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host  # a socket of another kind, or a name that a trusted proxy made up
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address.packed, _IPV6_PREFIX), strict=False))


def is_within(host: str, networks: tuple[Network, ...]) -> bool:
    """Returns whether the address `host` is in one of the networks."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)
