"""The hub's HTTP API, as far as a download needs it."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import httpx2

from ops.hub.errors import HubError, HubUnreachable
from ops.hub.listing import Listing, read_listing
from ops.hub.reference import HubReference
from ops.version import installed_version

DEFAULT_ENDPOINT = "https://huggingface.co"
_TIMEOUT_S = 30.0
_RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})


class HubApi:
    """Blocking. `token` goes to the endpoint alone, never to where it redirects."""

    def __init__(self, endpoint: str, token: str | None, *, timeout_s: float = _TIMEOUT_S) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._headers = {"user-agent": f"inferflux/{installed_version()}", "accept-encoding": "identity"}
        self._has_token = token is not None
        if token is not None:
            self._headers["authorization"] = f"Bearer {token}"
        self._timeout_s = timeout_s

    def listing(self, reference: HubReference) -> Listing:
        """The commit that a revision is now, and its files. Raises HubError."""
        revision = quote(reference.revision, safe="")
        url = f"{self.endpoint}/api/models/{reference.name}/revision/{revision}?blobs=true"
        try:
            with self._client() as client:
                answer = client.get(url)
                self._require(answer, reference)
                return read_listing(answer.json())
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(reference, error) from None
        except ValueError as error:
            raise HubError(f"{reference}: {self.endpoint} does not answer as a hub does ({error})") from None

    @contextmanager
    def content(self, reference: HubReference, commit: str, path: str, start: int) -> Iterator[httpx2.Response]:
        """The bytes of a file from `start` on, while the context is open. Raises HubError, and while it is read
        HubUnreachable."""
        url = f"{self.endpoint}/{reference.name}/resolve/{commit}/{quote(path)}"
        headers = {"range": f"bytes={start}-"} if start else {}
        try:
            with self._client() as client, client.stream("GET", url, headers=headers) as answer:
                if answer.status_code != 416:
                    self._require(answer, reference)
                yield answer
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(reference, error) from None

    def _client(self) -> httpx2.Client:
        return httpx2.Client(headers=self._headers, timeout=self._timeout_s, follow_redirects=True)

    def _unreachable(self, reference: HubReference, error: Exception) -> HubUnreachable:
        reason = str(error) or type(error).__name__
        return HubUnreachable(f"{reference}: {self.endpoint} cannot be reached ({reason})")

    def _require(self, answer: httpx2.Response, reference: HubReference) -> None:
        """Raises HubError unless it is a success."""
        status, code = answer.status_code, answer.headers.get("x-error-code", "")
        if status in (200, 206):
            return
        if status in _RETRYABLE:
            raise HubUnreachable(f"{reference}: {self.endpoint} answers {status}")
        raise HubError(f"{reference}: {self._reason(status, code, reference)}")

    def _reason(self, status: int, code: str, reference: HubReference) -> str:
        token = "the token in HF_TOKEN does not open it" if self._has_token else "set HF_TOKEN to a token that opens it"
        if code == "GatedRepo":
            return f"it is gated: accept its terms at {self.endpoint}/{reference.name}; {token}"
        if code == "RevisionNotFound":
            return f"no revision {reference.revision!r} in it"
        if code == "EntryNotFound":
            return f"no file {reference.file!r} in it"
        if status == 404 or code == "RepoNotFound":
            return f"no such repository at {self.endpoint}, or a private one; {token}"
        if status in (401, 403):
            return f"it is private or gated, or does not exist ({status}); {token}"
        return f"{self.endpoint} answers {status}"
