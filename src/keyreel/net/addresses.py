"""The policy for outgoing connections, and an HTTP client that enforces it.

Requests may name any URL. So the policy is enforced where the connection is made: the socket factory gets the final
address, whatever name, redirect or spelling led to it.
"""

import ipaddress
import re
import socket
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from keyreel.version import __version__

HOST_NAME = re.compile(r"([a-z0-9_-]+\.)*[a-z0-9_-]*[a-z][a-z0-9_-]*", re.IGNORECASE)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# IANA's special-purpose registries. The `ipaddress` module has these, too, but its answers differ between patch
# releases of Python.
PRIVATE_IPV4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "168.63.129.16/32",  # the platform services inside every Azure machine
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
        ),
    )
)
# IANA assigns public addresses only from this block. Outside it are loopback, link-local, unique local, multicast and
# the forms that embed an IPv4 address: NAT64, IPv4-compatible, IPv4-translated.
GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
PRIVATE_IPV6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # Teredo, ORCHID, benchmarking
            "2001:db8::/32",
            "2002::/16",  # 6to4
            "3fff::/20",
        ),
    )
)


class RefusedAddressError(OSError):
    """The address is not public, and the operator has not allowed it."""


@dataclass(frozen=True)
class AddressPolicy:
    """Permits public addresses, and those on the operator's list.

    `allow` contains networks ("10.1.0.0/16", "::1") and host names, which permit every address that they resolve to.
    Raises ValueError when an entry is neither.
    """

    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for entry in self.hosts:
            if not HOST_NAME.fullmatch(entry):
                raise ValueError(f"{entry!r} is neither a network nor a host name.")

    @classmethod
    def everything(cls) -> Self:
        """Returns a policy that permits every address, for programs that fetch only for their own user."""
        return cls(("0.0.0.0/0", "::/0"))

    @cached_property
    def networks(self) -> tuple[_Network, ...]:
        return tuple(network for entry in self.allow if (network := _network(entry)))

    @cached_property
    def hosts(self) -> frozenset[str]:
        return frozenset(entry.lower().rstrip(".") for entry in self.allow if not _network(entry))

    def permits(self, address: str) -> bool:
        """Tells whether `address`, an IPv4 or IPv6 address, may be connected to."""
        parsed = _unmapped(ipaddress.ip_address(address))
        return _is_public(parsed) or any(parsed in network for network in self.networks)

    def permits_host(self, host: str) -> bool:
        """Tells whether the operator's list contains the host name."""
        return host.lower().rstrip(".") in self.hosts


def guarded_session(
    policy: AddressPolicy, timeout: float, resolver: AbstractResolver | None = None
) -> aiohttp.ClientSession:
    """Returns a client that connects only where `policy` permits. `timeout`: seconds per request, body included."""
    guard = _Guard(policy, resolver or aiohttp.ThreadedResolver())
    return aiohttp.ClientSession(
        # The callers limit their connections: a limit here would let connections without an answer block all others.
        connector=aiohttp.TCPConnector(limit=0, resolver=guard, socket_factory=guard.open_socket),
        timeout=aiohttp.ClientTimeout(total=timeout),
        headers={"User-Agent": f"Keyreel/{__version__}", "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),  # requests of different users share the session
        trust_env=False,  # a proxy would connect in our place, without the policy
        read_bufsize=1024 * 1024,
    )


class _Guard(AbstractResolver):
    """Opens sockets only to permitted addresses, among them those that allowed host names have resolved to."""

    def __init__(self, policy: AddressPolicy, resolver: AbstractResolver) -> None:
        self._policy = policy
        self._resolver = resolver
        self._allowed_by_name: set[str] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        results = await self._resolver.resolve(host, port, family)
        if self._policy.permits_host(host):
            self._allowed_by_name.update(result["host"] for result in results)
        return results

    async def close(self) -> None:
        await self._resolver.close()

    def open_socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, (address, *_) = info
        if address not in self._allowed_by_name and not self._policy.permits(address):
            # Without the address: the client must not learn what a name resolves to inside this network.
            raise RefusedAddressError("its address is not public, and KEYREEL_ALLOW_HOSTS does not allow it")
        return socket.socket(family, kind, protocol)


def _network(entry: str) -> _Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _unmapped(address: _Address) -> _Address:
    """Returns a.b.c.d for ::ffff:a.b.c.d: the operating system connects to the IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_public(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in PRIVATE_IPV4)
    return address in GLOBAL_IPV6 and not any(address in network for network in PRIVATE_IPV6)
