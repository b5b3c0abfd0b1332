"""`inferflux up --no-edge` on the broker of another `up`: a machine that only serves."""

import json
from pathlib import Path

import pytest

from tests.support.edge_process import write_document
from tests.system.stack import Stack, fetch, until

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]


def workers(stack: Stack) -> dict[str, set[str]]:
    """Who serves, by model."""
    models = fetch(f"{stack.url}/v1/models")["data"]
    return {model["id"]: {entry["worker"] for entry in model["backends"]} for model in models}


def test_it_serves_what_is_registered_and_follows_the_manifest(stack: Stack, tmp_path: Path) -> None:
    manifest, config = tmp_path / "models.yaml", tmp_path / "server.yaml"
    write_document(manifest, {"models": {"extra": {"source": "echo:repeat"}}})
    config.write_text(json.dumps({"registry": {"path": str(manifest)}}))
    before = workers(stack)
    options = ["--no-edge", "--config", str(config), "--nats-url", stack.run["nats"]["url"]]
    node = Stack(tmp_path / "node", *options, "--nats-credentials", str(stack.data_dir / "nats" / "creds"))
    node.launch()
    try:
        until(lambda: "\nready" in node.log_path.read_text(), "the node is ready")
        # Nobody named a model: it registers none, and joins those who serve what there is.
        until(lambda: len(workers(stack)["echo"]) == len(before["echo"]) + 1, "it serves the model of the other one")
        # The one of the manifest both serve.
        until(lambda: len(workers(stack).get("extra", ())) == 2, "the model of the manifest is served")
        assert set(workers(stack)) == {*before, "extra"}
        write_document(manifest, "models: {extra: {sour")
        until(lambda: "the manifest is not used" in node.log_path.read_text(), "the log says what is wrong")
        assert len(workers(stack)["extra"]) == 2
        write_document(manifest, {"models": []})
        until(lambda: "extra" not in workers(stack), "it is unloaded")
    finally:
        write_document(manifest, {"models": []})
        node.stop()
    until(lambda: workers(stack) == before, "all is as it was")
