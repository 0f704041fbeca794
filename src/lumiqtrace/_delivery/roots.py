"""Whose certificates are believed: the system's list, what the user names, and certifi's where both fail."""

from __future__ import annotations

import os
import ssl

from .._lifecycle import loading


class Roots:
    """Whom to trust: the system's certificates, or what SSL_CERT_FILE and SSL_CERT_DIR name.

    The context is made at the first use; reading the certificates takes the better part of 20 ms.
    """

    __slots__ = ("_context", "_extended")

    def __init__(self) -> None:
        self._context: ssl.SSLContext | None = None
        self._extended = "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ

    def context(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
            self._context.set_alpn_protocols(["http/1.1"])
        return self._context

    def extend(self) -> bool:
        """Trust certifi's list too, where that is installed; False where it changes nothing.

        For a system that has no list or an old one. A list that the user named is the user's decision.
        """
        if self._extended:
            return False
        self._extended = True
        with loading():
            try:
                import certifi
            except ImportError:
                return False
        self.context().load_verify_locations(certifi.where())
        return True
