"""`lumiqtrace.integrations.flask` under the name of its own package.

An application may have imported it before pytest starts: PYTEST_DONT_REWRITE.
"""

from lumiqtrace.integrations.flask import *  # noqa: F403
