"""A model that does not load is told in one line, and the others serve, in processes of their own."""

import json
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.models import find_model, why_no_llama
from tests.system.beside import worker_beside
from tests.system.stack import Stack, fetch, until

pytestmark = [
    pytest.mark.nats,
    pytest.mark.llama,
    pytest.mark.skipif(bool(why_no_llama()), reason=why_no_llama() or ""),
]
REASON = "cut.gguf does not load: tensor 'blk."


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two models on echo and two files of llama.cpp's that were cut off, one of them the default."""
    folder = tmp_path_factory.mktemp("broken")
    whole = find_model()
    assert whole is not None
    (folder / "cut.gguf").write_bytes(whole.read_bytes()[:40_000_000])
    (folder / "stub.gguf").write_bytes(whole.read_bytes()[:20_000])
    models = {
        "cut": {"source": str(folder / "cut.gguf"), "default": True},
        "one": {"source": "echo:repeat"},
        "stub": {"source": str(folder / "stub.gguf")},
        "two": {"source": "echo:repeat"},
    }
    (folder / "server.yaml").write_text(json.dumps({"models": models}))
    stack = Stack(folder / "data", "--config", str(folder / "server.yaml"))
    try:
        stack.launch()
        until(lambda: _has_ended(stack) or "\ntry " in stack.log_path.read_text(), "the ready block")
        yield stack
    finally:
        stack.stop()


def _has_ended(stack: Stack) -> bool:
    assert stack.process is not None
    if stack.process.poll() is not None:
        raise AssertionError(f"up ended with {stack.process.returncode}:\n{stack.log_path.read_text()}")
    return False


def test_the_others_serve(stack: Stack) -> None:
    for model in ("one", "two"):
        answer = fetch(f"{stack.url}/v1/completions", body={"model": model, "prompt": f"hello {model}"})
        assert answer["choices"][0]["text"] == f"hello {model}"


def test_each_has_a_process_of_its_own(stack: Stack) -> None:
    workers = stack.run["workers"]
    # Those that serve nothing go on trying, each in its own.
    assert sorted(worker["backend"] for worker in workers) == ["echo", "echo", "llama_cpp", "llama_cpp"]
    assert len({worker["pid"] for worker in workers}) == 4
    models = fetch(f"{stack.url}/v1/models")["data"]
    serving = {model["id"]: [entry["worker"] for entry in model["backends"]] for model in models}
    assert serving["one"] != serving["two"]
    assert {model["id"] for model in models if model["ready"]} == {"one", "two"}


def test_the_reason_is_one_line_with_the_file(stack: Stack) -> None:
    lines = stack.log_path.read_text().splitlines()
    for model, reason in (("cut", REASON), ("stub", "stub.gguf does not load: failed to read key-value pairs")):
        (told,) = [line for line in lines if "[error" in line and f"model {model} is not served by worker-" in line]
        assert reason in told
    block = "\n".join(lines[[line.startswith("ready ") for line in lines].index(True) :])
    assert f"model    cut is not served: worker-1: {REASON}" in block
    assert "model    one on echo (the model's source is echo)" in block


def test_a_request_for_it_is_refused(stack: Stack) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(f"{stack.url}/v1/completions", body={"model": "stub", "prompt": "hello"})
    with refused.value as answer:
        assert (answer.code, json.loads(answer.read())["error"]["code"]) == (503, "no_worker")


def test_a_worker_that_is_told_to_serve_them_all_serves_what_loads(stack: Stack) -> None:
    with worker_beside(stack, "all", stack.data_dir.parent / "server.yaml") as worker:
        assert [model["id"] for model in worker.facts["models"]] == ["one", "two"]
        told = [line for line in worker.log_path.read_text().splitlines() if "is not served" in line]
        assert len(told) == 2 and REASON in told[0]


def test_the_stack_is_not_ready_without_its_default_model(stack: Stack) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(f"{stack.url}/readyz")
    with refused.value as answer:
        assert answer.code == 503


def test_when_no_model_loads_nothing_starts(stack: Stack, tmp_path: Path) -> None:
    folder = stack.data_dir.parent
    models = {name: {"source": str(folder / f"{name}.gguf")} for name in ("cut", "stub")}
    (tmp_path / "server.yaml").write_text(json.dumps({"models": models}))
    alone = Stack(tmp_path / "data", "--config", str(tmp_path / "server.yaml"))
    alone.launch()
    assert alone.process is not None
    assert alone.process.wait(60) == 3
    last = alone.log_path.read_text().splitlines()[-1]
    assert last.startswith(f"error: worker-1: {REASON}")
    assert "; worker-2: stub.gguf does not load" in last
    assert not (alone.data_dir / "run.json").exists()
