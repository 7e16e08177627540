"""Which IP addresses a node may call by itself. Pure.

A target's name is chosen by an operator, but its addresses by whoever serves its DNS: without a rule that is a way to
the cluster's own services and to the cloud's metadata (169.254.169.254).
"""

import ipaddress
from collections.abc import Sequence
from typing import Final

from relayfile.settings.targets import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are an IPv4 address."""


def may_call(raw: str, allowed: Sequence[Network]) -> bool:
    """Whether an address in text form is public, or in one of the `allowed` networks. What cannot be read is not."""
    try:
        address = ipaddress.ip_address(raw.partition("%")[0])
    except ValueError:
        return False
    meant = _meant(address)
    if any(each.version == network.version and each in network for each in (address, meant) for network in allowed):
        return True
    return meant.is_global and not meant.is_multicast and not meant.is_reserved


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
