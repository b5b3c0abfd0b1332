"""The section `auth.oidc`: whose tokens are taken, and what their claims mean."""

from typing import TYPE_CHECKING, Any

from ops.settings.errors import SettingsError
from ops.settings.kinds import BadValue, Kind, document, text
from schemas.oidc_rules import SCOPES, check_issuer, check_resource

if TYPE_CHECKING:
    from ops.settings.loader import Values
    from ops.settings.setting import Setting
    from schemas.oidc_policy import OidcPolicy

PREFIX = "auth.oidc."


def issuer() -> Kind[str]:
    return _url("an issuer's URL, https:// (http:// on a loopback host only) without query and fragment", check_issuer)


def public_url() -> Kind[str]:
    return _url("a URL such as https://llm.example", check_resource)


def _url(allowed: str, check: Any) -> Kind[str]:
    plain = text()

    def read(value: Any) -> str:
        url = plain.read(value)
        try:
            check(url)
        except ValueError:
            raise BadValue from None
        return url

    return Kind("URL", allowed, read)


def _read_scope_map(value: Any) -> dict[str, tuple[str, ...]]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadValue
    return {str(word): _read_scopes(str(word), scopes) for word, scopes in value.items()}


def _read_scopes(word: str, scopes: Any) -> tuple[str, ...]:
    scopes = [scopes] if isinstance(scopes, str) else scopes
    if not word or not isinstance(scopes, list) or not all(scope in SCOPES for scope in scopes):
        raise BadValue(f"{word!r} must open one or some of {', '.join(SCOPES)}")
    return tuple(scopes)


SCOPE_MAP = document(
    _read_scope_map,
    "a map of words in tokens to scopes",
    lambda value: "" if not value else f"{len(value)} words",
)


def read_oidc(values: "Values", rows: "dict[str, Setting[Any]]") -> "OidcPolicy | None":
    """The section as a whole; `rows` are its settings by key. Raises SettingsError: half of it is there."""
    fields = {key.removeprefix(PREFIX): values.get(row) for key, row in rows.items() if key.startswith(PREFIX)}
    if fields["issuer"] is None:
        given = [key for key, row in rows.items() if key.startswith(PREFIX) and values.get(row) != row.default]
        if given:
            raise SettingsError(f"{given[0]} ({values.origin(rows[given[0]])}): {PREFIX}issuer must be set as well")
        return None
    if fields["audience"] is None:
        row = rows[f"{PREFIX}issuer"]
        raise SettingsError(f"{PREFIX}issuer ({values.origin(row)}): {PREFIX}audience must be set as well")
    from pydantic import ValidationError  # takes 0.2 s

    from schemas.oidc_policy import OidcPolicy

    try:
        return OidcPolicy.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        key = PREFIX + str(first["loc"][0])
        raise SettingsError(f"{key} ({values.origin(rows[key])}): {first['msg']}") from None
