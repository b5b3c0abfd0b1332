"""The same call on every backend, in one `up`: only /v1/models tells them apart."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.models import find_model, why_no_llama, why_no_mlx, why_no_torch
from tests.system.stack import KEY, Stack, running

_MISSING = why_no_llama() or why_no_torch() or why_no_mlx()
pytestmark = [
    pytest.mark.llama,
    pytest.mark.torch,
    pytest.mark.mlx,
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(_MISSING), reason=_MISSING or ""),
]

REAL = ("llama_cpp", "torch", "mlx")
QUESTION = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A model for each backend, named like it."""
    folder = tmp_path_factory.mktemp("backends")
    limits: dict[str, Any] = {"sequences": 2, "context": 256}
    models = {name: {"source": str(find_model()), "backend": name, **limits} for name in REAL}
    models["llama_cpp"] |= {"threads": 1, "default": True}
    models["torch"] |= {"threads": 1}
    models["echo"] = {"source": "echo:repeat", "backend": "echo", **limits}
    config = folder / "server.yaml"
    config.write_text(json.dumps({"models": models}))
    with running(folder / "data", "--config", str(config)) as started:
        yield started


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=stack.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=120) as made:
        yield made


def _ask(client: httpx2.Client, model: str) -> dict[str, Any]:
    body = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 12}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _shape(value: object) -> object:
    """Keys and types of a JSON value, without its contents."""
    if isinstance(value, dict):
        return {key: _shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shape(each) for each in value]
    return type(value).__name__


def test_answers_do_not_tell_the_backend(client: httpx2.Client) -> None:
    answers = {model: _ask(client, model) for model in (*REAL, "echo")}
    assert len({json.dumps(_shape(answer), sort_keys=True) for answer in answers.values()}) == 1
    for model in REAL:
        assert "Paris" in answers[model]["choices"][0]["message"]["content"]
        assert answers[model]["choices"][0]["finish_reason"] == "stop"
    # The same tokenizer and template, whoever reads them from the file.
    assert len({answers[model]["usage"]["prompt_tokens"] for model in REAL}) == 1


def test_the_list_of_models_does(stack: Stack, client: httpx2.Client) -> None:
    models = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
    for name in (*REAL, "echo"):
        (entry,) = models[name]["backends"]
        assert entry["backend"] == name
        assert entry["reason"]


def test_torch_and_llama_cpp_are_in_processes_of_their_own(stack: Stack) -> None:
    workers = {worker["backend"]: worker["pid"] for worker in stack.run["workers"]}
    assert set(workers) == {*REAL, "echo"}
    libraries = {"llama_cpp": "libllama.so", "torch": "libtorch_cpu.so", "mlx": "libmlx.so"}
    for backend, pid in workers.items():
        mapped = Path(f"/proc/{pid}/maps").read_text()
        for other, library in libraries.items():
            assert (library in mapped) == (other == backend), f"{library} in the process of {backend}"
