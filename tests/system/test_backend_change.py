"""A model goes from one backend to another, and does not when its file is broken or too big. Not one request fails."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.counts import full_or
from tests.support.models import find_model, why_no_llama, why_no_torch
from tests.system.model_clients import Clients, admin, failed_requests
from tests.system.stack import Stack, fetch, running, until

pytestmark = [
    pytest.mark.nats,
    pytest.mark.llama,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(why_no_llama()), reason=why_no_llama() or ""),
]

IS_FULL = full_or(True, reduced=False)
SMALL = {"context": 256, "sequences": 2, "threads": 1}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """One model on echo, as configured."""
    (tmp_path / "server.yaml").write_text(json.dumps({"models": {"one": {"source": "echo:repeat"}}}))
    with running(tmp_path / "data", "--config", str(tmp_path / "server.yaml"), "--memory", "2GiB") as started:
        yield started


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the model's file will be."""
    return tmp_path / "model.gguf"


class Watched:
    """The model `one` while clients ask it."""

    def __init__(self, stack: Stack, clients: Clients) -> None:
        self._stack = stack
        self._clients = clients

    @property
    def shown(self) -> dict[str, Any]:
        found: dict[str, Any] = fetch(f"{self._stack.url}/v1/models/one")
        return found

    @property
    def backends(self) -> list[str]:
        return [entry["backend"] for entry in self.shown["backends"]]

    def goes_to(self, backend: str, method: str, path: str, body: dict[str, Any]) -> None:
        """What is asked for leads to this backend alone, in one process."""
        status, answer = admin(self._stack, method, f"{path}?wait=true", body)
        assert status == 200, answer
        until(lambda: self.backends == [backend], f"{backend} alone serves")
        until(lambda: [worker["backend"] for worker in self._stack.run["workers"]] == [backend], "the other one ends")
        until(lambda: self.shown["failed"] == [], "nothing is said to have failed")
        self._clients.go_on()

    def stays(self, words: str, method: str, path: str, body: dict[str, Any]) -> None:
        """What is asked for does not load, which status, metric and log say; what served goes on."""
        before, num_failed = self.backends, self._failed_loads()
        status, refused = admin(self._stack, method, f"{path}?wait=true", body)
        assert (status, refused["error"]["code"]) == (422, "model_load_failed"), refused
        assert words in refused["error"]["message"]
        shown = self.shown
        assert shown["ready"] and self.backends == before
        assert [words in entry["reason"] for entry in shown["failed"]] == [True]
        (listed,) = admin(self._stack, "GET", "")[1]["data"]
        assert (listed["state"], listed["failed"]) == ("failed", shown["failed"])
        until(lambda: self._failed_loads() > num_failed, "the failure is counted")
        told = [line for line in self._stack.log_path.read_text().splitlines() if "[error" in line and words in line]
        assert told and "model one" in told[-1]
        self._clients.go_on()

    def _failed_loads(self) -> float:
        samples = self._stack.metrics().items()
        return sum(
            value
            for name, value in samples
            if name.startswith("inferflux_model_loads_total{") and 'model="one"' in name and 'result="failed"' in name
        )


def test_from_echo_to_weights_and_back(stack: Stack, file: Path) -> None:
    whole = find_model()
    assert whole is not None
    file.write_bytes(whole.read_bytes()[:20_000])
    clients = Clients(stack)
    with clients.asking():
        one = Watched(stack, clients)
        one.stays("model.gguf does not load", "PATCH", "/one", {"source": str(file), **SMALL})
        replace(file, whole)
        one.goes_to("llama_cpp", "POST", "", {"id": "one", "source": str(file), **SMALL})
        assert one.shown["max_model_len"] == SMALL["context"]
        # The same file, replaced by half of one, and loaded again.
        cut(file, whole)
        one.stays("model.gguf does not load", "POST", "", {"id": "one", "source": str(file), **SMALL})
        # It comes back, and nobody has to say so.
        replace(file, whole)
        until(lambda: admin(stack, "GET", "")[1]["data"][0]["state"] == "served", "the file that is whole again loads")
        one.stays("runtime.memory_bytes", "PATCH", "/one", {"context": 2**20})
        one.goes_to("llama_cpp", "PATCH", "/one", {"context": SMALL["context"]})
        if IS_FULL:
            if why_no_torch() is None:
                one.goes_to("torch", "PATCH", "/one", {"backend": "torch"})
                one.goes_to("llama_cpp", "PATCH", "/one", {"backend": "llama_cpp"})
            one.goes_to("echo", "PATCH", "/one", {"source": "echo:repeat", "backend": "auto"})
            # Which backend it needs is not known before the file is there.
            file.unlink()
            one.stays("No such file", "PATCH", "/one", {"source": str(file)})
            replace(file, whole)
            until(lambda: one.backends == ["llama_cpp"], "the file that came loads", 60)
            clients.go_on()
    assert clients.failures == []
    assert failed_requests(stack) == {}


def replace(file: Path, whole: Path) -> None:
    """Whole, as one replaces files that are mapped."""
    beside = file.with_suffix(".new")
    shutil.copyfile(whole, beside)
    beside.replace(file)


def cut(file: Path, whole: Path) -> None:
    beside = file.with_suffix(".new")
    beside.write_bytes(whole.read_bytes()[:40_000_000])
    beside.replace(file)
