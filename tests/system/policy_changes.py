"""Changes of the policy as two edges in processes of their own act by them, and how long that takes."""

import json
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.system.stack import ADMIN_KEY, until


class Answer(NamedTuple):
    status: int
    body: Any


class Kept:
    """One connection to an edge, kept open: a question is a round trip."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        self._connection = HTTPConnection(parts.hostname, parts.port, timeout=60)

    def ask(self, method: str, path: str, key: str = ADMIN_KEY, body: dict[str, Any] | None = None) -> Answer:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        return Answer(answer.status, json.loads(answer.read() or b"null"))

    @property
    def version(self) -> int:
        version: int = self.ask("GET", "/v1/admin/policy").body["version"]
        return version

    def close(self) -> None:
        self._connection.close()


class Change(NamedTuple):
    """When it was answered, and how an edge that acts by it answers the key."""

    answered_at: float
    key: str
    status: int


class Changes:
    """Keys that are issued and revoked in turn, through one edge."""

    def __init__(self, edge: Kept) -> None:
        self._edge = edge
        self._issued: dict[str, Any] | None = None
        self._number = 0

    def make(self) -> Change:
        self._number += 1
        issued, self._issued = self._issued, None
        if issued is None:
            answer = self._edge.ask("POST", "/v1/admin/api_keys", body={"name": f"seen-{self._number}"})
            self._issued = answer.body
            return Change(time.perf_counter(), answer.body["key"], 200)
        answer = self._edge.ask("DELETE", f"/v1/admin/api_keys/{issued['id']}")
        assert answer.status == 200
        return Change(time.perf_counter(), issued["key"], 401)


def seen_at_both(url: str, other_url: str, count: int, report: Callable[[str, object], None]) -> None:
    """Each change is acted by at both edges, in order, none left out. Times are told, not judged."""
    own, other = Kept(url), Kept(other_url)
    first = own.version
    changes, own_ms, other_ms = Changes(own), [], []
    for number in range(1, count + 1):
        change = changes.make()
        other_ms.append(_delay_ms(other, change))
        own_ms.append(_delay_ms(own, change))
        assert (own.version, other.version) == (first + number, first + number)
    for where, delays in (("the other edge", other_ms), ("the edge itself", own_ms)):
        delays.sort()
        p50, p99 = (round(delays[int(share * (count - 1))], 1) for share in (0.5, 0.99))
        report(
            f"policy changes acted by at {where}, n={count}", f"p50 {p50} ms, p99 {p99} ms, most {delays[-1]:.1f} ms"
        )
    own.close()
    other.close()


def seen_in_order(url: str, other_url: str, count: int) -> None:
    """Changes without a pause between them: the other edge goes by them in order, and by the last in the end."""
    own, other = Kept(url), Kept(other_url)
    last = own.version + count
    versions: list[int] = []

    def watch() -> None:
        while not versions or versions[-1] < last:
            versions.append(other.version)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    for number in range(1, count + 1):
        assert own.ask("PUT", "/v1/admin/rate_limit", body={"requests_per_minute": 10_000 + number}).status == 200
    watching.join(60)
    assert not watching.is_alive(), "the last change was not seen"
    assert versions == sorted(versions) and versions[-1] == last
    assert other.ask("GET", "/v1/admin/rate_limit").body["requests_per_minute"] == 10_000 + count
    assert own.ask("POST", "/v1/admin/policy/reset", body={"section": "limits"}).status == 200
    until(lambda: other.version == last + 1, "the reset is seen")
    own.close()
    other.close()


def _delay_ms(edge: Kept, change: Change) -> float:
    """From the answer of the change until the edge acts by it; a round trip is in it."""
    deadline = time.monotonic() + 60
    while edge.ask("GET", "/v1/models", change.key).status != change.status:
        assert time.monotonic() < deadline, "the change was not seen"
    return (time.perf_counter() - change.answered_at) * 1000
