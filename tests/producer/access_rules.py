"""Who may do what over HTTP, written by hand from what is promised to users. The route table is held against it.

Nothing here comes from the operation records that the edge itself decides by.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """`opens`: any of these scopes opens the route; None of them means that it needs no key at all.

    `body` is a call that is served to whoever may make it; None for routes without one.
    """

    opens: frozenset[str]
    is_owners: bool = False  # shows or ends a request: only its owner learns that there is one
    owned: str = ""  # the same of a "file", with what has come of a batch, or of a "batch"
    names_model: bool = False  # refused for models that the key was not granted
    has_priority: bool = False  # refused above the key's ceiling
    body: Mapping[str, Any] | None = None


_ANYBODY = Rule(frozenset())
_READERS = frozenset({"read", "generate"})
_GENERATE = frozenset({"generate"})
_ADMIN = Rule(frozenset({"admin"}))
_ADMIN_PATHS = "/v1/admin/"

_RULES = {
    ("GET", "/"): _ANYBODY,
    ("GET", "/healthz"): _ANYBODY,
    ("GET", "/health"): _ANYBODY,
    ("GET", "/livez"): _ANYBODY,
    ("GET", "/readyz"): _ANYBODY,
    ("GET", "/version"): _ANYBODY,
    ("GET", "/openapi.json"): _ANYBODY,
    ("GET", "/docs"): _ANYBODY,
    ("GET", "/docs/{name}"): _ANYBODY,
    ("GET", "/.well-known/oauth-protected-resource"): _ANYBODY,
    ("GET", "/metrics"): Rule(frozenset({"read"})),
    ("GET", "/v1/models"): Rule(_READERS),
    ("GET", "/v1/models/{id:path}"): Rule(_READERS, names_model=True),
    ("POST", "/v1/chat/completions"): Rule(
        _GENERATE,
        names_model=True,
        has_priority=True,
        body={"messages": [{"role": "user", "content": "one two"}]},
    ),
    ("POST", "/v1/completions"): Rule(_GENERATE, names_model=True, has_priority=True, body={"prompt": "one two"}),
    ("DELETE", "/v1/requests/{id}"): Rule(_GENERATE, is_owners=True),
    ("GET", "/v1/requests/{id}/events"): Rule(_GENERATE, is_owners=True),
    ("GET", "/v1/files"): Rule(_READERS),
    ("POST", "/v1/files"): Rule(_GENERATE),
    ("GET", "/v1/files/{id}"): Rule(_READERS, owned="file"),
    ("GET", "/v1/files/{id}/content"): Rule(_READERS, owned="file"),
    ("DELETE", "/v1/files/{id}"): Rule(_GENERATE, owned="file"),
    ("GET", "/v1/batches"): Rule(_READERS),
    ("POST", "/v1/batches"): Rule(_GENERATE),
    ("GET", "/v1/batches/{id}"): Rule(_READERS, owned="batch"),
    ("POST", "/v1/batches/{id}/cancel"): Rule(_GENERATE, owned="batch"),
}


def rule_of(method: str, path: str) -> Rule:
    """The rule of a route. Raises LookupError when nobody has thought about it."""
    if path.startswith(_ADMIN_PATHS):
        return _ADMIN
    try:
        return _RULES[method, path]
    except KeyError:
        raise LookupError(f"{method} {path} has no rule in {__name__}: who may call it, and for what?") from None


def ruled() -> set[tuple[str, str]]:
    """Routes that there must be, apart from those for administrators."""
    return set(_RULES)
