"""Models are loaded, exchanged and unloaded under load, and not one request fails."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import find_model, why_no_llama
from tests.system.model_clients import Clients, admin, failed_requests
from tests.system.stack import ADMIN_KEY, Stack, fetch, running, until

pytestmark = [pytest.mark.nats, pytest.mark.timeout(300)]


def exchange(stack: Stack, first: str, second: dict[str, Any]) -> None:
    """Load a second model, make it the default, change it, unload the first, with clients all the while."""
    clients = Clients(stack)
    with clients.asking():
        clients.go_on()
        status, model = admin(stack, "POST", "?wait=true", second)
        assert (status, model["state"]) == (200, "served")
        clients.go_on()
        assert admin(stack, "PUT", "/default", {"id": model["id"]})[0] == 200
        clients.go_on()
        status, model = admin(stack, "PATCH", f"/{model['id']}?wait=true", {"sequences": 3})
        assert (status, [entry["slots"] for entry in model["backends"]]) == (200, [3])
        clients.go_on()
        assert admin(stack, "DELETE", f"/{first}")[0] == 200
        clients.go_on()
        until(lambda: len(stack.run["workers"]) == 1, "the process of the first model ends")
        status, refused = admin(stack, "POST", "?wait=true", {"id": model["id"], "source": "/nowhere/m.gguf"})
        assert (status, refused["error"]["code"]) == (422, "model_load_failed")
        assert "/nowhere/m.gguf" in refused["error"]["message"]
        clients.go_on()
    assert clients.failures == []
    assert failed_requests(stack) == {}
    until(lambda: any('result="failed"' in name for name in stack.metrics()), "the failure is counted")
    assert "goes on as it was" in stack.log_path.read_text()


def test_no_request_fails_and_a_restart_keeps_what_was_loaded(tmp_path: Path) -> None:
    (tmp_path / "server.yaml").write_text(json.dumps({"models": {"one": {"source": "echo:repeat"}}}))
    with running(tmp_path / "data", "--config", str(tmp_path / "server.yaml")) as stack:
        exchange(stack, "one", {"id": "org/two", "source": "echo:repeat?rate=400"})
        command = [sys.executable, "-m", "ops.cli.inferctl", "admin", "models"]
        command += ["--host", "127.0.0.1", "--port", str(stack.port)]
        environ = {**stack.env, "INFERCTL_API_KEY": ADMIN_KEY}
        load = [*command, "--load", "echo:repeat", "--id", "org/two", "--json"]
        done = subprocess.run(load, env=environ, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, json.loads(done.stdout)["state"]) == (0, "served"), done.stderr
        assert stack.stop() == 0
        stack.start()
        listed = admin(stack, "GET", "")[1]["data"]
        assert [(model["id"], model["origin"], model["default"]) for model in listed] == [("org/two", "admin", True)]
        assert fetch(f"{stack.url}/v1/completions", body={"prompt": "back"})["choices"][0]["text"] == "back"


@pytest.mark.llama
@pytest.mark.slow
@pytest.mark.skipif(bool(why_no_llama()), reason=why_no_llama() or "")
def test_so_it_is_with_weights(tmp_path: Path) -> None:
    whole = find_model()
    assert whole is not None
    (tmp_path / "cut.gguf").write_bytes(whole.read_bytes()[:20_000])
    with running(tmp_path / "data", "--model", str(whole)) as stack:
        status, refused = admin(stack, "POST", "?wait=true", {"id": "cut", "source": str(tmp_path / "cut.gguf")})
        assert (status, "cut.gguf does not load" in refused["error"]["message"]) == (422, True)
        assert admin(stack, "DELETE", "/cut")[0] == 200
        exchange(stack, whole.stem, {"id": "second", "source": str(whole), "context": 512})
