"""No secret gets out: not into a log, a metric, an error, an audit record or a command line."""

import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.secrets import find_leaks, own_secrets, planted
from tests.system.stack import Stack, until

pytestmark = [pytest.mark.nats, pytest.mark.slow, pytest.mark.timeout(180)]


class Planted(NamedTuple):
    """What nobody may see. `prompt` is for the model alone, which answers with other words."""

    key: str
    admin_key: str
    pepper: str
    passphrase: str
    token: str
    prompt: str


def jwt_like(text: str) -> str:
    """A bearer token of the shape of an identity provider's, which nobody here has signed."""
    return f"eyJhbGciOiJSUzI1NiJ9.{text}.c2ln"


@pytest.fixture(scope="module")
def secret() -> Planted:
    return Planted(
        planted("key"),
        planted("admin"),
        planted("pepper"),
        planted("passphrase"),
        jwt_like(planted("token")),
        planted("prompt"),
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, secret: Planted) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("secrets")
    env = {
        "INFERFLUX_API_KEYS": f"{secret.key}:generate+read,{secret.admin_key}:generate+read+admin",
        "INFERFLUX_KEY_PEPPER": secret.pepper,
        "INFERFLUX_POLICY_PASSPHRASE": secret.passphrase,
        "INFERFLUX_LOG_LEVEL": "debug",
        "INFERFLUX_AUDIT__LEVEL": "requests",
        "INFERFLUX_AUDIT_LOG": str(folder / "audit.jsonl"),
    }
    started = Stack(folder / "data", "--backend", "echo", env=env)
    started.key = secret.key
    try:
        yield started.start()
    finally:
        started.stop()


def ask(
    stack: Stack, path: str, key: str, body: Any = None, *, method: str | None = None, **headers: str
) -> tuple[int, str]:
    """Status and body, also of a refusal."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{stack.url}{path}", data=data, method=method)
    request.add_header("Content-Type", "application/json")
    request.add_header("Authorization", f"Bearer {key}")
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def command_lines(stack: Stack) -> str:
    """Of `up` and all that it runs."""
    assert stack.process is not None
    found = []
    for pid in (stack.process.pid, *stack.pids()):
        with contextlib.suppress(FileNotFoundError):
            found.append(Path(f"/proc/{pid}/cmdline").read_text())
    return "\n".join(found)


def refusals(stack: Stack, secret: Planted) -> list[tuple[int, str]]:
    """Each way to be refused that has a secret on its way in."""
    chat = {"messages": [{"role": "user", "content": secret.prompt}]}
    completions = "/v1/completions"
    return [
        ask(stack, "/v1/models", secret.token),
        ask(stack, "/v1/models", secret.key + "x"),
        ask(stack, "/v1/models", "", x_api_key=secret.key + "x"),
        ask(stack, "/v1/admin/audit", secret.key),
        ask(stack, completions, secret.token, {"prompt": secret.prompt}),
        ask(stack, completions, secret.key, {"prompt": secret.prompt, "temperature": 99}),
        ask(stack, completions, secret.key, {"prompt": secret.prompt, "max_tokens": "many"}),
        ask(stack, completions, secret.key, {"prompt": {"text": secret.prompt}}),
        ask(stack, completions, secret.key, {"prompt": secret.prompt, "model": "none"}),
        ask(stack, completions, secret.key, f'{{"prompt": "{secret.prompt}"'.encode()),
        ask(stack, completions, secret.key, {"prompt": secret.prompt * 2000}),
        ask(stack, "/v1/chat/completions", secret.key, {**chat, "priority": 9}),
        ask(stack, "/v1/chat/completions", secret.key, {**chat, "tools": [{"secret": secret.prompt}]}),
        ask(stack, "/v1/requests/none/events", secret.key),
    ]


def test_no_secret_gets_out(stack: Stack, secret: Planted, tmp_path: Path) -> None:
    body = {"prompt": secret.prompt, "max_tokens": 8}
    assert ask(stack, "/v1/completions", secret.key, body)[0] == 200
    issued = issue_keys(stack, secret)
    refused = refusals(stack, secret)
    assert {status for status, _ in refused} >= {400, 401, 403, 404}
    assert all(status >= 400 for status, _ in refused)
    wanted = "/v1/admin/audit?action=request.generate&outcome=allowed"
    until(lambda: json.loads(ask(stack, wanted, secret.admin_key)[1])["data"], "the request is recorded")
    texts = {f"refusal {number}: {status}": text for number, (status, text) in enumerate(refused)}
    for path in (
        "/metrics",
        "/v1/admin/audit?limit=1000",
        "/v1/admin/audit/export",
        "/v1/admin/audit/verify",
        "/v1/admin/policy",
    ):
        status, texts[path] = ask(stack, path, secret.admin_key)
        assert status == 200
    texts["the wrong key on a command line"] = wrong_key(stack, secret)
    texts["command lines"] = command_lines(stack)
    texts["run.json"] = (stack.data_dir / "run.json").read_text()
    own = {**own_secrets(stack.data_dir), **issued}
    stack.stop()
    logs = {str(path): path.read_text() for path in stack.data_dir.parent.rglob("*.log")}
    audit_log = stack.data_dir.parent / "audit.jsonl"
    assert len(audit_log.read_text().splitlines()) >= 5
    assert "refused" in "".join(logs.values())
    assert find_leaks({**texts, **logs, str(audit_log): audit_log.read_text()}, own) == []


def issue_keys(stack: Stack, secret: Planted) -> dict[str, str]:
    """The secrets of a key that an administrator issues, uses and rotates."""
    issue = ask(stack, "/v1/admin/api_keys", secret.admin_key, {"name": "issued", "scopes": ["generate"]})
    first = json.loads(issue[1])
    body = {"prompt": secret.prompt, "max_tokens": 2}
    assert ask(stack, "/v1/completions", first["key"], body)[0] == 200
    path = f"/v1/admin/api_keys/{first['id']}"
    second = json.loads(ask(stack, f"{path}/rotate", secret.admin_key, {})[1])
    assert ask(stack, path, secret.admin_key, method="DELETE")[0] == 200
    assert ask(stack, "/v1/completions", second["key"], body)[0] == 401
    return {"an issued key": first["key"], "a rotated key": second["key"]}


def wrong_key(stack: Stack, secret: Planted) -> str:
    """What a command says whose key is refused."""
    command = [sys.executable, "-m", "ops.cli.inferctl", "models"]
    env = {**stack.env, "INFERCTL_PORT": str(stack.port), "INFERCTL_API_KEY": secret.key + "x"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    return done.stdout + done.stderr
