"""Every error lumiqtrace raises, and the only ones that can reach a user: mistakes made while setting it up.

    LumiqError
    ├── ConfigError         (also a ValueError)   an option that cannot be right
    ├── MissingExtraError   (also an ImportError) a library that is not installed
    └── CommandError                              what the command line reports and exits 1 for

After start-up nothing of ours is ever raised into the application.
"""

from __future__ import annotations


class LumiqError(Exception):
    """The base of the tree."""


class ConfigError(LumiqError, ValueError):
    """An option cannot be right. The message names the option, the value and what would be right."""


class MissingExtraError(LumiqError, ImportError):
    """A library is missing. The message is the command that installs it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the {extra} extra: pip install 'lumiqtrace[{extra}]'")


class CommandError(LumiqError):
    """A command cannot do what was asked; the message is shown to the user as it is."""
