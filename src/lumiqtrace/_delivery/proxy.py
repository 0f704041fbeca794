"""Which proxy the environment names for a host: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`.

Lower-case names go first, as everywhere. This machine itself is never reached through a proxy, so that a
key for a local server does not leave it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from .._config import Secret
from .._hosts import address_of, is_local

__all__ = ["Proxy", "ProxyError", "is_local", "proxy_for"]


class ProxyError(Exception):
    """The environment names a proxy that cannot be used. The message shows no password."""


class Proxy(NamedTuple):
    """An HTTP proxy; `credentials` is `user:password`."""

    host: str
    port: int
    credentials: Secret | None


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str] = os.environ) -> Proxy | None:
    """The proxy for `scheme://host:port`; None where it is reached directly. Raises ProxyError.

    `HTTP_PROXY` in capitals is not believed inside a CGI program, where a request's header `Proxy:` sets it
    (CVE-2016-5385).
    """
    names = [f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY"]
    if "REQUEST_METHOD" in environ:
        names = [name for name in names if name != "HTTP_PROXY"]
    name = next((name for name in names if environ.get(name)), None)
    if name is None or is_local(host) or _is_excepted(host, port, environ):
        return None
    return _parsed(name, environ[name].strip())


def _parsed(name: str, value: str) -> Proxy:
    right = "lumiqtrace can use one such as http://proxy.example:3128"
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        raise ProxyError(f"the proxy in {name} cannot be read; {right}") from None
    if parts.scheme != "http" or not host:
        raise ProxyError(f"the proxy in {name} is no http:// address; {right}, or NO_PROXY to go without")
    credentials = None
    if parts.username is not None:
        credentials = Secret(f"{unquote(parts.username)}:{unquote(parts.password or '')}")
    return Proxy(host, port, credentials)


def _is_excepted(host: str, port: int, environ: Mapping[str, str]) -> bool:
    """Whether `NO_PROXY` names the host: itself, a domain above it, `*`, or a network its address is in."""
    text = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    name = host.lower().rstrip(".")
    return any(_matches(entry.lower(), name, port) for entry in text.replace(",", " ").split())


def _matches(entry: str, name: str, port: int) -> bool:
    if entry == "*":
        return True
    address = address_of(name)
    if address is not None and "/" in entry:
        import ipaddress

        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    written, colon, number = entry.rpartition(":")
    if colon and number.isdigit() and (":" not in written or written.endswith("]")):
        if int(number) != port:
            return False
        entry = written
    bare = entry.strip("[]").removeprefix("*").lstrip(".")
    if address is not None:
        return address_of(bare) == address
    return bool(bare) and (name == bare or name.endswith("." + bare))
