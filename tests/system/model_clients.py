"""Clients that ask the default model all the while, and what administrators do to it meanwhile."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.counts import full_or
from tests.system.stack import ADMIN_KEY, Stack, fetch, until

NUM_CLIENTS = full_or(12, reduced=4)


class Clients:
    """Ask the default model again and again; `failures` is what they got instead of an answer."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(NUM_CLIENTS)]
        self.failures: list[str] = []
        self.num_answered = 0

    def _ask_on(self) -> None:
        while not self._is_over.is_set():
            try:
                fetch(f"{self._stack.url}/v1/completions", body={"prompt": "one two three", "max_tokens": 8})
                self.num_answered += 1
            except urllib.error.HTTPError as error:
                with error:
                    self.failures.append(error.read().decode())
            except OSError as error:
                self.failures.append(repr(error))

    @contextmanager
    def asking(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in self._threads:
                thread.join()

    def go_on(self) -> None:
        """Return once each client has had answers since."""
        before = self.num_answered
        until(lambda: self.failures or self.num_answered > before + 2 * NUM_CLIENTS, "answers", 120)


def admin(stack: Stack, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{stack.url}/v1/admin/models{path}", data=data, method=method)
    request.add_header("Authorization", f"Bearer {ADMIN_KEY}")
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def failed_requests(stack: Stack) -> dict[str, float]:
    """What the edge itself counts of requests that did not end well."""
    return {
        name: value
        for name, value in stack.metrics().items()
        if name.startswith("inferflux_requests_total{") and 'code="ok"' not in name and value
    }
