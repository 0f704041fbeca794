"""`lumiqtrace.integrations.fastapi` under the name of its own package."""

from lumiqtrace.integrations.fastapi import *  # noqa: F403
