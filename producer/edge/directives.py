"""Request headers that steer how a call is served."""

from dataclasses import dataclass

from starlette.datastructures import Headers

from producer.edge.calls import OnDisconnect
from producer.edge.errors import invalid
from producer.edge.ids import check_idempotency_key
from producer.edge.translate import check_timeout

REQUEST_TIMEOUT = "X-Request-Timeout"
ON_DISCONNECT = "X-InferFlux-On-Disconnect"
QUEUE_UPDATES = "X-InferFlux-Queue-Updates"
JOURNAL = "X-InferFlux-Journal"


@dataclass(frozen=True, slots=True)
class Directives:
    timeout_s: float | None
    on_disconnect: OnDisconnect
    queue_updates: bool
    idempotency_key: str | None
    journaled: bool


def read_directives(headers: Headers, max_timeout_s: float) -> Directives:
    """Raises ServingError (400) naming the header."""
    idempotency_key = check_idempotency_key(headers.get("idempotency-key"))
    return Directives(
        timeout_s=_timeout(headers, max_timeout_s),
        on_disconnect=read_on_disconnect(
            headers, default=OnDisconnect.CONTINUE if idempotency_key else OnDisconnect.CANCEL
        ),
        queue_updates=read_queue_updates(headers),
        idempotency_key=idempotency_key,
        journaled=_switch(headers, JOURNAL, default=True),
    )


def _timeout(headers: Headers, max_timeout_s: float) -> float | None:
    text = headers.get(REQUEST_TIMEOUT)
    if text is None:
        return None
    try:
        timeout_s = float(text)
    except ValueError:
        raise invalid(f"{REQUEST_TIMEOUT} must be a number of seconds.", REQUEST_TIMEOUT) from None
    check_timeout(timeout_s, max_timeout_s, REQUEST_TIMEOUT)
    return timeout_s


def read_on_disconnect(headers: Headers, default: OnDisconnect) -> OnDisconnect:
    text = headers.get(ON_DISCONNECT)
    if text is None:
        return default
    try:
        return OnDisconnect(text.strip().lower())
    except ValueError:
        raise invalid(f"{ON_DISCONNECT} must be cancel or continue.", ON_DISCONNECT) from None


def read_queue_updates(headers: Headers) -> bool:
    return _switch(headers, QUEUE_UPDATES, default=False)


def _switch(headers: Headers, name: str, *, default: bool) -> bool:
    text = headers.get(name)
    if text is None:
        return default
    match text.strip().lower():
        case "on":
            return True
        case "off":
            return False
    raise invalid(f"{name} must be on or off.", name)
