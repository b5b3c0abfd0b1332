"""Cross-origin requests: pages on this machine may call, others when configured."""

import re
from collections.abc import Sequence

_LOOPBACK = re.compile(r"https?://(localhost|[\w-]+\.localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_EXPOSED = ", ".join(
    (
        "X-Request-Id",
        "X-Client-Request-Id",
        "X-InferFlux-Priority",
        "X-InferFlux-Ignored",
        "X-InferFlux-Resume",
        "Retry-After",
        "X-Should-Retry",
    )
)
_MAX_AGE_S = "600"


class Cors:
    """Decides which origins may read answers. `*` among the configured ones lets all of them."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)

    def allows(self, origin: str) -> bool:
        return (
            "*" in self._origins
            or origin.rstrip("/").lower() in self._origins
            or _LOOPBACK.fullmatch(origin) is not None
        )

    def headers(self, origin: str) -> list[tuple[bytes, bytes]]:
        """Of an answer to an allowed origin."""
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSED.encode()),
            (b"vary", b"Origin"),
        ]

    def preflight_headers(self, requested: str | None) -> dict[str, str]:
        """Of the answer to a preflight. Requested headers are named one by one: `*` does not cover Authorization."""
        return {
            "access-control-allow-methods": "GET, POST, PUT, DELETE, OPTIONS",
            "access-control-allow-headers": requested or "Authorization, Content-Type",
            "access-control-max-age": _MAX_AGE_S,
        }
