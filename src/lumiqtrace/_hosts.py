"""Where a host is, as far as its name or address tells: on this machine, on a private network, or anywhere.

Nothing is looked up. What cannot be told counts as the open network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ipaddress

# Reserved for private use, by RFC 6761, 6762 and 8375 and by ICANN in 2024, or by Kubernetes and routers;
# and `.invalid`, which is nobody's.
_PRIVATE_ENDINGS: Final = (
    *(".test", ".local", ".internal", ".home.arpa"),
    *(".svc", ".lan", ".localdomain", ".invalid"),
)


def is_local(host: str) -> bool:
    """Whether the host is this machine: `localhost` and names below it, 127.0.0.0/8, ::1, and the
    addresses 0.0.0.0 and ::, to which a connection is one to this machine.
    """
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = address_of(name)
    return address is not None and bool(address.is_loopback or address.is_unspecified)


def is_private(host: str) -> bool:
    """Whether only machines of one network reach the host: also by a bare name, as in a compose file."""
    name = host.lower().rstrip(".")
    address = address_of(name)
    if address is not None:
        return bool(address.is_private or address.is_link_local)
    return is_local(name) or ("." not in name and name[:1].isalpha()) or name.endswith(_PRIVATE_ENDINGS)


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that the host is written as, of IPv4 also inside IPv6; None for a name."""
    # Names are more frequent, and they alone need not load the module.
    if ":" not in host and not host[-1:].isdigit():
        return None
    import ipaddress

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
