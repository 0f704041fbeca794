"""Who is asking: the project behind a request's key or token.

The project always comes from the credential, never from the query. A missing, malformed and unknown
credential get the same answer.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request

from .credentials import digest
from .storage.base import Store


def project_of_writer(request: Request, store: Store) -> tuple[str, bytes]:
    """The project that the `x-api-key` header opens, and the key's digest. Raises 401."""
    key = digest(request.headers.get("x-api-key", ""))
    project = store.project_of_key(key)
    if project is None:
        raise HTTPException(401, "Invalid API key")
    return project, key


def project_of_reader(request: Request, store: Store) -> str:
    """The project that the bearer token opens, once `projectId` has named it too. Raises 401, 400, 403."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    project = store.project_of_token(digest(token.strip())) if scheme.lower() == "bearer" else None
    if project is None:
        raise HTTPException(401, "Not authenticated", {"WWW-Authenticate": "Bearer"})
    asked = request.query_params.get("projectId")
    if not asked:
        raise HTTPException(400, "projectId: required in the query")
    if asked != project:
        raise HTTPException(403, "Not a member of this organization")
    return project
