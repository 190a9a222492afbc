"""`Reachable`: which addresses this service may connect to. Pure.

Public ones, by the registries of special addresses (RFC 6890, IANA); besides them loopback in development, and the
networks that operators name. An address that carries another one inside (NAT64, RFC 6052) is judged by that one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
# What no operator may open: this machine, its neighbours on the wire (the metadata services of clouds are there), and
# what is no single host.
_NEVER: tuple[Network, ...] = (
    *_LOOPBACK,
    *map(IPv4Network, ("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32")),
    *map(IPv6Network, ("::/128", "::ffff:0:0/96", "fe80::/10", "ff00::/8", "fd00:ec2::/32")),
)
_NOT_PUBLIC_4 = tuple(
    map(
        IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
            *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
            *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
            "168.63.129.16/32",  # public by its number, but Azure's own services answer there inside each machine
        ),
    )
)
# Of IPv6 only 2000::/3 is in public use: outside lie ULA, link-local, site-local, multicast, and whatever carries an
# IPv4 address without a gateway (mapped, compatible, SIIT).
_PUBLIC_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    map(
        IPv6Network,
        ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),  # with Teredo, documentation, 6to4
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
# A host whose last label begins like a number is read as an IPv4 address somewhere (WHATWG URL, `inet_aton`).
_NUMERIC = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)\.?", re.IGNORECASE)


class AddressRefused(OSError):
    """This service does not connect there. Nothing was sent."""

    def __init__(self, host: str, address: str) -> None:
        super().__init__(f"{host} leads to {address}, which is not reachable from here")
        self.host = host
        self.address = address


@dataclass(frozen=True)
class Reachable:
    """Public addresses, with the `networks`, and with this machine where `loopback`."""

    networks: tuple[Network, ...] = ()
    loopback: bool = False

    def admits(self, address: str) -> bool:
        """Whether a connection may go to that address, in the form that resolvers give. Anything else is refused."""
        try:
            found = ip_address(address)
        except ValueError:  # a scope too (`fe80::1%eth0`): it is no public address
            return False
        return not getattr(found, "scope_id", None) and self._admits(found)

    def _admits(self, address: Address) -> bool:
        if isinstance(address, IPv6Address) and address in _NAT64:
            return self._admits(IPv4Address(address.packed[-4:]))
        if any(address in network for network in _LOOPBACK):
            return self.loopback
        return _is_public(address) or any(address in network for network in self.networks)

    def require(self, host: str, addresses: Iterable[str]) -> None:
        """Raises AddressRefused if any of the addresses of `host` is not admitted."""
        for address in addresses:
            if not self.admits(address):
                raise AddressRefused(host, address)

    def require_host(self, host: str) -> None:
        """Raises AddressRefused for a host that is an address and not admitted, or written as none should be.

        A name passes: its addresses are checked when it is resolved. The forms that only some read as an address
        (`127.1`, `0x7f000001`, `2130706433`) are refused, whatever they stand for.
        """
        if ":" in host or _NUMERIC.fullmatch(host) or not host.isascii():
            self.require(host, [host.strip("[]")])


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def parse_network(text: str) -> Network:
    """Raises ValueError with a sentence that does not repeat the text, which may be a secret in the wrong place."""
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(
            'must be networks, such as ["10.20.0.0/16"], with no bit set beyond the prefix'
        ) from None


def parse_opened(text: str) -> Network:
    """A network that operators may open. Raises ValueError likewise."""
    network = parse_network(text)
    taken = next((never for never in _NEVER if _overlap(network, never)), None)
    if taken is not None:
        raise ValueError(f"must not hold {taken}, which is never opened; name smaller networks")
    return network


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)
