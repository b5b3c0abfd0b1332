"""Talks to an edge: one base address, one key, errors that name what to do."""

import ssl
from collections.abc import Generator, Iterable, Mapping
from typing import Any

import httpx2

from ops.client.address import parse_address, tls_reason
from ops.client.resuming import OnComment, ResumingStream, message
from ops.errors import Failure
from ops.loopback import DEV_KEY, is_loopback

CONNECT_TIMEOUT_S = 5.0
# An answer may be queued for long; the server's deadline ends it, and comments flow meanwhile.
READ_TIMEOUT_S = 3600.0


class Client:
    """Synchronous; `close` it, or use it as a context. `auth` is what authorizes requests instead of a key."""

    def __init__(
        self,
        host: str,
        port: int | None,
        api_key: str | None,
        tls: ssl.SSLContext | None = None,
        auth: httpx2.Auth | None = None,
    ) -> None:
        """`host` is a name, or an address with its scheme and perhaps a port. `tls` None: the system's authorities.

        Raises Failure for an address that is none.
        """
        address = parse_address(host, port)
        self.base_url = address.url
        is_local = is_loopback(address.host)
        key = api_key or (DEV_KEY if is_local and auth is None else None)
        self._http = httpx2.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            auth=auth,
            timeout=httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            # A proxy for the outside world has no business between two programs of one machine.
            trust_env=not is_local,
            # Reading the system's authorities takes longer than most answers; plain HTTP has no use for them.
            verify=tls if tls is not None else self.base_url.startswith("https:"),
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, timeout_s: float | None = None) -> Any:
        """The JSON body of an answer, waited for as long as it takes. Raises Failure with the server's message."""
        return self.json_of(self._send("GET", path, timeout_s=timeout_s))

    def get_text(self, path: str) -> str:
        """The body of an answer as text. Raises Failure with the server's message."""
        response = self._send("GET", path)
        if not response.is_success:
            raise self._name(response)
        return response.text

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self.json_of(self._send("POST", path, body))

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        return self.json_of(self._send("PUT", path, body))

    def send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float | None = None
    ) -> Any:
        """The JSON body of the answer to any method. Raises Failure with the server's message."""
        return self.json_of(self._send(method, path, body, timeout_s))

    def post_for_bytes(self, path: str, body: Mapping[str, Any]) -> bytes:
        """The bytes of the answer to a POST. Raises Failure with the server's message."""
        response = self._send("POST", path, body)
        if not response.is_success:
            raise self._name(response)
        return response.content

    def upload(self, path: str, chunks: Iterable[bytes]) -> Any:
        """Send bytes as they come; the JSON body of the answer. Raises Failure with the server's message."""
        try:
            return self.json_of(self._http.request("POST", path, content=chunks))
        except httpx2.TransportError as error:
            raise self._name(error) from None

    def send_file(self, path: str, fields: Mapping[str, str], filename: str, file: Any) -> Any:
        """Send a form with a file, read as it goes; the JSON body of the answer. Raises Failure."""
        try:
            files = {"file": (filename, file, "application/jsonl")}
            return self.json_of(self._http.request("POST", path, data=dict(fields), files=files))
        except httpx2.TransportError as error:
            raise self._name(error) from None

    def download(self, path: str) -> Generator[bytes, None, None]:
        """The bytes of an answer as they come. Raises Failure, also when the connection ends before the answer."""
        try:
            with self._http.stream("GET", path) as response:
                if not response.is_success:
                    response.read()
                    raise self._name(response)
                yield from response.iter_bytes()
        except httpx2.TransportError as error:
            raise self._name(error) from None

    def probe(self, path: str) -> httpx2.Response:
        """The answer whatever its status. Raises Failure when nothing listens."""
        return self._send("GET", path)

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Chunks of a streamed answer as they come; when the connection breaks, from a new one where the server can.

        Raises Failure, also for an error in mid-stream. Closing the iterator closes the connection, and with it the
        generation ends.
        """
        return self.generation().chunks(path, body)

    def generation(self, on_comment: OnComment | None = None) -> ResumingStream:
        """One streamed answer to be asked for, with what the server tells before it begins."""
        return ResumingStream(self._http.stream, self._name, on_comment)

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout_s: float | None = None
    ) -> httpx2.Response:
        timeout = httpx2.USE_CLIENT_DEFAULT if timeout_s is None else httpx2.Timeout(timeout_s)
        try:
            return self._http.request(method, path, json=body, timeout=timeout)
        except httpx2.TransportError as error:
            raise self._name(error) from None

    def json_of(self, response: httpx2.Response) -> Any:
        if not response.is_success:
            raise self._name(response)
        try:
            return response.json()
        except ValueError:
            raise Failure(f"{self.base_url} answered with something that is not JSON") from None

    def _name(self, problem: httpx2.Response | httpx2.TransportError) -> Failure:
        """What to tell about a response that is none, or about no response."""
        match problem:
            case httpx2.ConnectError() if (reason := tls_reason(problem)) is not None:
                return Failure(f"{self.base_url}: {reason}")
            case httpx2.ConnectError():
                return Failure(f"nothing listens on {self.base_url}; start with make up")
            case httpx2.TimeoutException():
                return Failure(f"{self.base_url} did not answer in time")
            case httpx2.TransportError():
                return Failure(f"{self.base_url}: the connection broke ({type(problem).__name__})")
        try:
            return Failure(message(problem.json()))
        except ValueError:
            return Failure(f"HTTP {problem.status_code}")
