"""Logging in where there is no browser (RFC 8628): the user confirms a code elsewhere, and we ask until then."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ops.client.login.credentials import Login
from ops.client.login.issuer import Issuer, NoAnswer, login_of, post, printable, problem
from ops.errors import Failure
from schemas.oidc_rules import is_trustworthy

_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_INTERVAL_S = 5.0
_MAX_INTERVAL_S = 60.0
_LIFETIME_S = 600.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the user must do: open `url` and confirm `code`. `whole_url` has the code in it, if there is such a one."""

    url: str
    code: str
    whole_url: str | None


def log_in(
    issuer: Issuer,
    client_id: str,
    asked: Mapping[str, str],
    show: Callable[[Prompt], None],
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Login:
    """Log in; `asked` are further fields: scope, audience, resource. Raises Failure."""
    if issuer.device_endpoint is None:
        raise Failure(f"{issuer.issuer} does not offer to log in from a terminal (device authorization)")
    is_granted, begun = post(issuer.device_endpoint, {"client_id": client_id, **asked})
    device_code = begun.get("device_code")
    if not is_granted or not isinstance(device_code, str):
        raise Failure(f"{issuer.issuer} refuses to begin a login: {problem(begun)}")
    until = clock() + _number(begun.get("expires_in"), _LIFETIME_S)
    show(_prompt(issuer, begun))
    fields = {"grant_type": _GRANT, "device_code": device_code, "client_id": client_id}
    if "resource" in asked:
        fields["resource"] = asked["resource"]
    interval_s = _number(begun.get("interval"), _INTERVAL_S)
    while True:
        wait(interval_s)
        try:
            is_granted, answer = post(issuer.token_endpoint, fields)
        except NoAnswer:
            is_granted, answer = False, {"error": "no_answer"}
        if is_granted:
            return login_of(issuer, client_id, answer)
        interval_s = _next_interval(answer, interval_s)
        if clock() >= until:
            raise Failure("the code has expired; run inferctl login again")


def _next_interval(answer: Mapping[str, Any], interval_s: float) -> float:
    """How long to wait after a refusal. Raises Failure when it was the last word."""
    match answer.get("error"):
        case "authorization_pending":
            return interval_s
        case "slow_down":
            return interval_s + 5
        case "no_answer":
            return min(2 * interval_s, max(interval_s, _MAX_INTERVAL_S))
        case "access_denied":
            raise Failure("the login was refused")
        case "expired_token":
            raise Failure("the code has expired; run inferctl login again")
        case _:
            raise Failure(f"the issuer refuses: {problem(answer)}")


def _prompt(issuer: Issuer, begun: Mapping[str, Any]) -> Prompt:
    url, code, whole = (begun.get(name) for name in ("verification_uri", "user_code", "verification_uri_complete"))
    if not isinstance(url, str) or not isinstance(code, str) or not is_trustworthy(url):
        raise Failure(f"{issuer.issuer} does not say where to confirm the login")
    return Prompt(url, printable(code), whole if isinstance(whole, str) and is_trustworthy(whole) else None)


def _number(value: Any, default: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return float(value) if is_number else default
