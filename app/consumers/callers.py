"""`Proxies`: the address a request comes from, where it may have come through proxies. Pure.

Each proxy adds to `X-Forwarded-For` whom it was asked by, at the right end. So it is read from there, for as long as
whoever wrote an entry is trusted; what stands further to the left a client may have made up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
_MAX_ENTRIES = 32
_MAX_LENGTH = 64  # of an entry; an IPv6 address with brackets and port takes 53
_IPV6_PREFIX = 64  # what one subscriber has at least (RFC 6177)


@dataclass(frozen=True)
class Proxies:
    """Those that are trusted to say whom they were asked by."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def caller(self, peer: str | None, forwarded: Iterable[str] = ()) -> str | None:
        """The address of the first one, from here, that is no trusted proxy. `forwarded` are the values of
        `X-Forwarded-For`, in the order of the request. An entry that is no address ends the chain: then it is the proxy
        that wrote it. None where the peer has no address.
        """
        address = _address(peer or "")
        if address is None:
            return peer
        if not self._trusts(address):
            return str(address)
        entries = ",".join(forwarded).rsplit(",", _MAX_ENTRIES)[-_MAX_ENTRIES:]
        for entry in reversed(entries):
            found = _address(entry)
            if found is None:
                break
            address = found
            if not self._trusts(address):
                break
        return str(address)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


def neighbourhood(address: str | None) -> str:
    """What counts as one caller: an IPv4 address, or the /64 of an IPv6 address, all of which one machine may have."""
    found = _address(address or "")
    if isinstance(found, IPv6Address):
        return str(ip_network((found, _IPV6_PREFIX), strict=False))
    return "unknown" if found is None else str(found)


def _address(text: str) -> Address | None:
    """As proxies write them: `192.0.2.1`, `192.0.2.1:1234`, `2001:db8::1`, `[2001:db8::1]:1234`, in quotes or not."""
    text = text.strip().strip('"')
    if len(text) > _MAX_LENGTH:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
