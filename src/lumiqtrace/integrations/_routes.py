"""Which route answered, as Starlette and FastAPI leave it in a request's scope."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def route_of(scope: Mapping[str, Any]) -> str | None:
    """The path template that was chosen, below those of the mounts above it; None without one.

    `/tenants/{tenant}/users/{user_id}`. What is mounted and tells no route of its own is `/static/{path}`.
    """
    root = _root(scope)
    route = scope.get("route") or _searched(scope, root)
    mounted = _mounted_at(scope, root, getattr(route, "param_convertors", ()))
    if route is None or hasattr(route, "routes"):  # nothing matched, below a mount or at all
        return mounted + "/{path}" if mounted else None
    # FastAPI keeps a router's routes as they were written; how they are included stands here.
    included = scope.get("fastapi", {}).get("effective_route_context")
    template = getattr(included, "path_format", "") or getattr(route, "path_format", "") or route.path
    return mounted + str(template)


def _root(scope: Mapping[str, Any]) -> str:
    """What of the path is above the application that answered."""
    root = scope.get("root_path", "")
    return root if root and scope["path"].startswith(root) else ""


def _mounted_at(scope: Mapping[str, Any], root: str, below: Iterable[str]) -> str:
    """The path at which the application is mounted, its parameters by their names: `/tenants/{tenant}`.

    The parameters `below` are the route's own; one may have the same value as a word of the path above.
    """
    top = scope.get("app_root_path")
    if top is None or len(root) <= len(top):
        return ""
    names = {
        str(value): f"{{{name}}}" for name, value in scope.get("path_params", {}).items() if name not in below
    }
    return "/".join(names.get(part, part) for part in root[len(top) :].split("/"))


def _searched(scope: Mapping[str, Any], root: str) -> Any:
    """The route of the endpoint that answered, for a Starlette that does not put it into the scope."""
    endpoint, router = scope.get("endpoint"), scope.get("router")
    if endpoint is None or router is None:
        return None
    return _below(router.routes, endpoint, scope["path"][len(root) :])


def _below(routes: Iterable[Any], endpoint: object, path: str) -> Any:
    for route in routes:
        if getattr(route, "endpoint", None) is endpoint and route.path_regex.match(path):
            return route
        found = _below(getattr(route, "routes", None) or (), endpoint, path)
        if found is not None:
            return found
    return None
