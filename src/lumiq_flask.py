"""`lumiqtrace.integrations.flask` under the name of its own package."""

from lumiqtrace.integrations.flask import *  # noqa: F403
