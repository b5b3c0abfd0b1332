"""Files that a browser is given: read once, and not sent again to who has them."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

_FOLDER = Path(__file__).with_name("static")
_MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript"}


@dataclass(frozen=True, slots=True)
class StaticFile:
    content: bytes
    media_type: str
    etag: str

    def answer(self, request: Request, headers: dict[str, str] | None = None) -> Response:
        """The file, or 304 when the caller has it."""
        # Kept by browsers, and asked for each time, so that page and scripts are of one version.
        own = {"etag": self.etag, "cache-control": "no-cache", **(headers or {})}
        if self._is_known(request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=own)
        return Response(self.content, media_type=self.media_type, headers=own)

    def _is_known(self, if_none_match: str) -> bool:
        return any(tag.strip().removeprefix("W/") in (self.etag, "*") for tag in if_none_match.split(","))


@cache
def static_file(name: str) -> StaticFile:
    """The file of that name in the folder; names come from code, never from a caller."""
    path = _FOLDER / name
    content = path.read_bytes()
    return StaticFile(content, _MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')
