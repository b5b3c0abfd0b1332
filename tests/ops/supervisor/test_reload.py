"""`inferflux up` and its children read their configuration again; models of it that changed are registered."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.edge_process import write_document
from tests.system.stack import Stack, fetch, running, until

pytestmark = [pytest.mark.nats, pytest.mark.timeout(180)]


def document(*ids: str, **more: Any) -> dict[str, Any]:
    models = {model_id: {"source": "echo", "queue_max": 5} for model_id in ids}
    return {"models": models, "registry": {"poll_interval_ms": 3_600_000}, **more}


def test_up_passes_a_hangup_on_and_registers_what_changed(tmp_path: Path) -> None:
    config = tmp_path / "server.yaml"
    write_document(config, document("first"))
    with running(tmp_path / "data", "--config", str(config)) as stack:
        assert stack.process is not None
        pids = stack.pids()

        def said(process: str, words: str) -> bool:
            lines = stack.log_path.read_text().splitlines()
            return any(process in line and words in line for line in lines)

        # Whom does the signal alone reach? Nothing has changed that anybody watches.
        os.kill(stack.process.pid, signal.SIGHUP)
        for process in ("edge", "worker-1", "inferflux.reload"):
            until(lambda process=process: said(process, "configuration read again"), f"{process} hears of it", 60)  # type: ignore[misc]

        write_document(config, document("first", "second", nats={"replicas": 3}))
        os.kill(stack.process.pid, signal.SIGHUP)
        until(lambda: listed(stack) == {"first", "second"}, "the new model is known", 60)
        until(lambda: said("inferflux.reload", "needs a restart: nats.replicas"), "what is not reread is named")

        write_document(config, document("first", "third"))  # no signal
        until(lambda: listed(stack) == {"first", "third"}, "the file is watched", 60)

        write_document(config, document("first", "fourth").__str__().replace("'", "") + "}")
        os.kill(stack.process.pid, signal.SIGHUP)
        until(lambda: said("inferflux.reload", "the configuration stays as it was"), "a bad file is told", 60)
        write_document(config, {"models": {"first": {"source": str(tmp_path / "none.gguf")}}})
        until(lambda: said("inferflux.reload", "none.gguf: No such file"), "a model that is not there is told", 60)
        assert listed(stack) == {"first", "third"}
        assert fetch(f"{stack.url}/v1/completions", body={"model": "first", "prompt": "hello"})["choices"]
        assert set(pids) <= set(stack.pids())


def listed(stack: Stack) -> set[str]:
    return {model["id"] for model in fetch(f"{stack.url}/v1/models")["data"]}
