"""Talks to an edge: one base address, one key, errors that name what to do."""

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2

from ops.client.sse import events
from ops.errors import Failure
from ops.loopback import DEV_KEY, is_loopback

CONNECT_TIMEOUT_S = 5.0
# An answer may be queued for long; the server's deadline ends it, and comments flow meanwhile.
READ_TIMEOUT_S = 3600.0


class Client:
    """Synchronous; `close` it, or use it as a context."""

    def __init__(self, host: str, port: int, api_key: str | None) -> None:
        bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
        self.base_url = f"http://{bracketed}:{port}"
        is_local = is_loopback(host)
        key = api_key or (DEV_KEY if is_local else None)
        self._http = httpx2.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            # A proxy for the outside world has no business between two programs of one machine.
            trust_env=not is_local,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str) -> Any:
        """The JSON body of an answer. Raises Failure with the server's message."""
        return self._json(self._send("GET", path))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._json(self._send("POST", path, body))

    def probe(self, path: str) -> httpx2.Response:
        """The answer whatever its status. Raises Failure when nothing listens."""
        return self._send("GET", path)

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Chunks of a streamed answer as they come. Raises Failure, also for an error in mid-stream or a cut stream.

        Closing the iterator closes the connection, and with it the generation ends.
        """
        with _named_errors(self.base_url), self._http.stream("POST", path, json={**body, "stream": True}) as response:
            if response.status_code != 200:
                response.read()
                raise _failure(response)
            for event in events(response.iter_bytes()):
                if event.data == "[DONE]":
                    return
                chunk: dict[str, Any] = json.loads(event.data)
                if "error" in chunk:
                    raise Failure(_message(chunk))
                yield chunk
        raise Failure("the stream was cut before its end")

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx2.Response:
        with _named_errors(self.base_url):
            return self._http.request(method, path, json=body)

    def _json(self, response: httpx2.Response) -> Any:
        if not response.is_success:
            raise _failure(response)
        try:
            return response.json()
        except ValueError:
            raise Failure(f"{self.base_url} answered with something that is not JSON") from None


@contextmanager
def _named_errors(base_url: str) -> Iterator[None]:
    try:
        yield
    except httpx2.ConnectError:
        raise Failure(f"nothing listens on {base_url}; start with make up") from None
    except httpx2.TimeoutException:
        raise Failure(f"{base_url} did not answer in time") from None
    except httpx2.TransportError as error:
        raise Failure(f"{base_url}: the connection broke ({type(error).__name__})") from None


def _failure(response: httpx2.Response) -> Failure:
    try:
        return Failure(_message(response.json()))
    except ValueError:
        return Failure(f"HTTP {response.status_code}")


def _message(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return f"an error without a message: {body!r}"
    code = error.get("code")
    return f"{error.get('message')}{f' [{code}]' if code else ''}"
