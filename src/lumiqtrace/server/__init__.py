"""The lumiqtrace server: takes events durably and gives traces back as trees.

One process, one SQLite file. `serve` runs it until it is told to stop, `running` runs it in a thread,
`create_app` is the ASGI application for a server of one's own.
"""

try:
    import msgspec as _msgspec  # noqa: F401
    import platformdirs as _platformdirs  # noqa: F401
    import sqlalchemy as _sqlalchemy  # noqa: F401
    import starlette as _starlette  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ImportError as exc:
    raise ImportError("lumiqtrace serve needs the server extra: pip install 'lumiqtrace[server]'") from exc

from .app import create_app
from .credentials import Credentials
from .errors import ServerError
from .run import RunningServer, create_project, running, serve
from .storage.sqlite import SqliteStore

__all__ = [
    "Credentials",
    "RunningServer",
    "ServerError",
    "SqliteStore",
    "create_app",
    "create_project",
    "running",
    "serve",
]
