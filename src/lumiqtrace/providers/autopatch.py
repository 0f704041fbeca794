"""`autopatch()`: every provider library that is installed, and no complaint about those that are not."""

from __future__ import annotations

from .._errors import MissingExtraError
from .anthropic import patch_anthropic
from .google import patch_google
from .openai import patch_openai


def autopatch() -> tuple[str, ...]:
    """Record the model calls of every supported library that is installed; gives their names.

    The same as `patch_openai()`, `patch_anthropic()` and `patch_google()`, without an error for a library
    that is missing. Idempotent; imports none of them.
    """
    patched = []
    for name, patch in (("openai", patch_openai), ("anthropic", patch_anthropic), ("google", patch_google)):
        try:
            patch()
        except MissingExtraError:
            continue
        patched.append(name)
    return tuple(patched)
