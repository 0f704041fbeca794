"""The way to the server, step by step as a delivery takes it: proxy, name, connection, certificate, answer.

Each step gives a finding and waits for a bounded time. They are those of `_delivery.http` and
`_delivery.transport`, so that what is found here is what a delivery meets. Sockets are loaded when a step
needs them.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from .._config import LumiqConfig
from .._delivery.proxy import Proxy, ProxyError, is_local, proxy_for
from .._delivery.transport import INGEST_PATH, HttpTransport, Reply, TransportError
from .._encode import compress
from .._redaction.redact import redact_text
from .finding import FAILURE, NOTE, OK, WARNING, Finding
from .words import error_of, printable

if TYPE_CHECKING:
    from .._delivery import http

MAX_SKEW: Final = 30.0
"""Seconds between our clock and the server's, from which on traces of several machines look odd."""

SOON: Final = 14 * 86_400.0
"""Seconds; a certificate that ends sooner is worth a word."""

MAX_SAID: Final = 200
"""Characters of a server's own words that are shown."""


class Way:
    """From this machine to the server of `config`; `reply` is the server's answer once there is one."""

    def __init__(self, config: LumiqConfig, patience: float) -> None:
        """`patience` is seconds for each step."""
        self.reply: Reply | None = None
        self._config = config
        self._patience = patience
        self._url = config.base_url
        parts = urlsplit(config.base_url)
        self._scheme = parts.scheme
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._via: Proxy | None = None

    def address(self) -> Finding:
        """The base URL, whose form was checked with the options."""
        if self._scheme == "http" and not is_local(self._host):
            said = f"{self._url} is not encrypted: who is on the way can read the key and the events"
            return Finding("base URL", WARNING, said, "use https://, unless the network is your own")
        return Finding("base URL", OK, self._url)

    def proxy(self) -> Finding:
        """Whether the environment sends us through one."""
        try:
            self._via = proxy_for(self._scheme, self._host, self._port)
        except ProxyError as error:
            advice = "correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY"
            return Finding("proxy", FAILURE, str(error), advice)
        if self._via is None:
            return Finding("proxy", OK, "none, the server is reached directly")
        said = f"{self._via.host}:{self._via.port}, from the environment; NO_PROXY excepts hosts"
        return Finding("proxy", NOTE, said)

    def name(self) -> Finding:
        """The host's name, or the proxy's, to addresses."""
        host, port = self._peer()
        try:
            found = _bounded(lambda: _addresses(host, port), self._patience)
        except TimeoutError:
            said = f"{host}: the name server did not answer within {self._patience:g} s"
            return Finding("name", FAILURE, said, "check the name servers of this machine (/etc/resolv.conf)")
        except (OSError, UnicodeError) as error:
            advice = "check the spelling of the base URL, and the name servers of this machine"
            if self._via is not None:
                advice = "check the spelling of the proxy's name in the environment"
            return Finding("name", FAILURE, f"{host} cannot be resolved: {_told(error)}", advice)
        return Finding("name", OK, f"{host} is {', '.join(found)}")

    def connection(self) -> Finding:
        """A TCP connection to the server, or to the proxy."""
        import socket

        host, port = self._peer()
        started = time.perf_counter()
        try:
            socket.create_connection((host, port), self._patience).close()
        except TimeoutError:
            said = f"{host} port {port} did not answer within {self._patience:g} s"
            return Finding("connection", FAILURE, said, "a firewall may drop what goes there; allow it")
        except OSError as error:
            said = f"{host} port {port}: {_told(error)}"
            advice = "is the server running, and does it listen on this address and port?"
            return Finding("connection", FAILURE, said, advice)
        took = (time.perf_counter() - started) * 1000
        return Finding("connection", OK, f"{host} port {port} answers, {took:.0f} ms")

    def certificate(self) -> Finding:
        """The TLS handshake, with certificates checked as a delivery checks them."""
        if self._scheme == "http":
            return Finding("certificate", NOTE, "none: the base URL is an http:// one")
        import ssl

        from .._delivery import http

        try:
            with closing(_connected(self._url, self._patience)) as connection:
                assert isinstance(connection._socket, ssl.SSLSocket)
                told = connection._socket.getpeercert()
        except ssl.SSLCertVerificationError as error:
            return _untrusted(self._host, error.verify_message)
        except http.ERRORS as error:
            said = f"no TLS with {self._host} port {self._port}: {_told(error)}"
            return Finding("certificate", FAILURE, said, "does the server speak https on this port?")
        return _judged(told, ssl.cert_time_to_seconds)

    def answer(self) -> Finding:
        """What the server says to our key and a batch without events."""
        transport = HttpTransport(self._config)
        try:
            self.reply = transport.send(compress([]), {}, self._patience)
        except TransportError as error:
            advice = "check that base_url is a lumiqtrace server's and that nothing else answers for it"
            return Finding("server", FAILURE, _shown(str(error)), advice)
        finally:
            transport.close()
        return self._read(self.reply)

    def clock(self) -> Finding:
        """This machine's clock against the server's `Date`."""
        date = self.reply.headers.get("date", "") if self.reply else ""
        try:
            moment = parsedate_to_datetime(date)
        except (ValueError, TypeError, IndexError, OverflowError):
            return Finding("clock", NOTE, "the server did not say what time it is")
        # A date with the zone "-0000" is UTC and naive.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        ahead = (datetime.now(UTC) - moment).total_seconds()
        if abs(ahead) <= MAX_SKEW:
            return Finding("clock", OK, "agrees with the server's")
        side = "ahead of" if ahead > 0 else "behind"
        said = f"this machine's clock is {abs(ahead):,.0f} s {side} the server's"
        advice = "have it set by NTP (timedatectl set-ntp true); events carry this machine's time"
        return Finding("clock", WARNING, said, advice)

    def _peer(self) -> tuple[str, int]:
        """Who is connected to."""
        return (self._via.host, self._via.port) if self._via else (self._host, self._port)

    def _read(self, reply: Reply) -> Finding:
        status, said = reply.status, f"{self._url}{INGEST_PATH} answered {reply.status}"
        words = _shown(error_of(reply.body))
        if 200 <= status < 300 or (status == 400 and words):
            return Finding("server", OK, "the ingest endpoint answers and takes the key")
        if words:
            said += f": {words}"
        return Finding("server", FAILURE, said, _advice(reply))


def _connected(url: str, seconds: float) -> http.Connection:
    """Trusts what a delivery trusts: the system's list, then certifi's."""
    import ssl

    from .._delivery import http

    target, roots = http.Target.of(url), http.Roots()
    try:
        return http.Connection(target, roots, http.Deadline(seconds))
    except ssl.SSLCertVerificationError:
        if not roots.extend():
            raise
        return http.Connection(target, roots, http.Deadline(seconds))


def _untrusted(host: str, why: str) -> Finding:
    if "expired" in why or "not yet valid" in why:
        advice = "renew the server's certificate, or set this machine's clock"
    elif "mismatch" in why.lower() or "not valid for" in why:
        advice = "use the name that the certificate is for in base_url"
    else:
        advice = "put the certificate file of the server's authority into SSL_CERT_FILE"
    return Finding("certificate", FAILURE, f"the certificate of {host} is not trusted: {why}", advice)


def _judged(told: Any, seconds_of: Any) -> Finding:
    """What a certificate that is trusted says."""
    names = [value for kind, value in told.get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
    ends = seconds_of(told["notAfter"])
    shown = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
    said = f"for {shown}, trusted, until {datetime.fromtimestamp(ends, UTC):%Y-%m-%d}"
    if ends - time.time() < SOON:
        return Finding("certificate", WARNING, said, "it ends soon: have it renewed")
    return Finding("certificate", OK, said)


def _addresses(host: str, port: int) -> list[str]:
    import socket

    found = socket.getaddrinfo(host.encode("idna").decode("ascii"), port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _bounded(function: Any, seconds: float) -> Any:
    """`function()`, given up after so many seconds with a TimeoutError: a lookup knows no end of its own."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append((function(), None))
        except (OSError, UnicodeError) as error:
            results.append((None, error))

    thread = threading.Thread(target=run, name="lumiqtrace-doctor", daemon=True)
    thread.start()
    thread.join(seconds)
    if not results:
        raise TimeoutError
    found, error = results[0]
    if error is not None:
        raise error
    return found


def _advice(reply: Reply) -> str:
    """What to do about an answer that is not that of the ingest endpoint to a good key."""
    status = reply.status
    if status in (401, 403):
        return "the key is refused: copy it again from the settings of the project on this very server"
    if status in (404, 405):
        return "base_url is wrong: it is the server's address without /v1/ingest"
    if status == 429:
        after = _shown(reply.headers.get("retry-after", ""))
        return f"too much was sent; try again {f'in {after} s' if after.isdigit() else 'later'}"
    if 300 <= status < 400:
        there = _shown(reply.headers.get("location", "elsewhere"))
        return f"redirects are never followed: set base_url to where it points ({there})"
    if status >= 500:
        return "the server is in trouble: look into its log; an SDK keeps events and tries again"
    return "check that base_url is a lumiqtrace server's"


def _shown(text: str) -> str:
    """A server's words, bounded and without what looks like a key."""
    return printable(redact_text(text))[:MAX_SAID]


def _told(error: BaseException) -> str:
    """The system's words for an error, without its number."""
    return _shown(getattr(error, "strerror", None) or str(error) or type(error).__name__)
