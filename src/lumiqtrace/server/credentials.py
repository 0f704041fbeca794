"""Keys and tokens: 32 random bytes behind a prefix that says what they open.

A secret is shown once, when it is made. What is kept is its SHA-256: guessing 256 random bits is out of
reach, so a slow hash would only slow the server.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field

KEY_PREFIX = "lqt_"
TOKEN_PREFIX = "lqr_"  # noqa: S105 - the prefix, not a token

_SHOWN_CHARACTERS = 10


@dataclass(frozen=True, slots=True)
class Credentials:
    """A new project's identity and secrets. The secrets are not in its repr."""

    project_id: str
    api_key: str = field(repr=False)
    read_token: str = field(repr=False)


def new_credentials() -> Credentials:
    """Those of a project that does not exist yet."""
    return Credentials(
        project_id=f"proj_{secrets.token_hex(8)}",
        api_key=KEY_PREFIX + secrets.token_hex(32),
        read_token=TOKEN_PREFIX + secrets.token_hex(32),
    )


def digest(secret: str) -> bytes:
    """SHA-256 of any string at all, so that a malformed secret is just one that is not found."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def shown(secret: str) -> str:
    """The start of a secret, enough to recognise it by."""
    return secret[:_SHOWN_CHARACTERS]
