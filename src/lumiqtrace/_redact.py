"""Secrets out of text: what looks like a key or a token becomes `[REDACTED]`.

Provider errors quote the key they refused. The patterns are linear: none can backtrack over its input.
"""

from __future__ import annotations

import re
from typing import Final

REDACTED: Final = "[REDACTED]"

# Each alternative starts with a literal, so that a long harmless text is scanned once. Providers
# shorten a key they quote with asterisks, which is why these are part of a key here.
_SECRET: Final = re.compile(
    r"""
    \b(?:sk|pk|rk)-[A-Za-z0-9_*\-]{6,}             # OpenAI, Anthropic and those who copied the shape
    | \blq[tr]_[A-Za-z0-9_*]{4,}                   # ours
    | \bAIza[A-Za-z0-9_*\-]{10,}                   # Google
    | \b(?:gsk|xai|hf|pplx|fw)[_-][A-Za-z0-9_*]{10,} # Groq, xAI, Hugging Face, Perplexity, Fireworks
    | \beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{4,}  # a JWT
    | (?<=[Bb]earer\ )[A-Za-z0-9._~+/=\-]{8,}      # what follows an Authorization scheme
    """,
    re.VERBOSE,
)


def redact_text(text: str) -> str:
    """`text` with every secret-looking value replaced by `[REDACTED]`."""
    return _SECRET.sub(REDACTED, text)
