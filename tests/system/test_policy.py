"""Keys and rules as an administrator sees them: real edges, `inferctl`, restarts, and secrets that do not fit."""

import contextlib
import json
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from ops.cli.inferctl import group
from ops.cli.program import main
from tests.support.counts import full_or
from tests.support.ports import free_port
from tests.system.beside import edge_beside
from tests.system.conftest import Report
from tests.system.policy_changes import seen_at_both, seen_in_order
from tests.system.stack import ADMIN_KEY, KEY, Stack, echo_config, fetch, running, until

pytestmark = [pytest.mark.nats, pytest.mark.slow, pytest.mark.timeout(180)]

PASSPHRASE = "planted-passphrase-one"
NEW_PASSPHRASE = "planted-passphrase-two"


class Ended(NamedTuple):
    """What a command line came to."""

    returncode: int
    stdout: str
    stderr: str


def inferctl(stack: Stack, *arguments: str, key: str = ADMIN_KEY, stdin: str = "") -> Ended:
    """The command line in this process: each of its own would take longer to start than it takes."""
    environ = {"INFERCTL_PORT": str(stack.port), "INFERCTL_API_KEY": key}
    with CliRunner().isolation(input=stdin, env=environ) as (stdout, stderr, _):
        code = main(group, "inferctl", ["admin", *arguments])
        sys.stdout.flush()
        sys.stderr.flush()
        return Ended(code, stdout.getvalue().decode(), stderr.getvalue().decode())


def done(stack: Stack, *arguments: str, key: str = ADMIN_KEY, stdin: str = "") -> Any:
    """The JSON that a command prints."""
    result = inferctl(stack, *arguments, "--json", key=key, stdin=stdin)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def refused_start(stack: Stack, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """An edge beside the stack that is expected to end at once."""
    command = [sys.executable, "-m", "ops.cli.inferflux", "edge", "--data-dir", str(stack.data_dir)]
    return subprocess.run(
        [*command, "--port", str(free_port()), *options],
        capture_output=True,
        text=True,
        # An empty one counts as none: then it is left out.
        env={name: value for name, value in {**stack.env, **env}.items() if value},
        timeout=60,
        check=False,
    )


def status(url: str, key: str) -> int:
    try:
        fetch(f"{url}/v1/models", key=key)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


class Streaming:
    """One streamed answer, read in a thread of its own; `error` is the code of the event that it ends with."""

    def __init__(self, url: str, key: str) -> None:
        body = {"prompt": "x", "max_tokens": 4000, "ignore_eos": True, "stream": True}
        self._request = urllib.request.Request(f"{url}/v1/completions", data=json.dumps(body).encode())
        self._request.add_header("Authorization", f"Bearer {key}")
        self._request.add_header("Content-Type", "application/json")
        self.has_begun = threading.Event()
        self.error: str | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with urllib.request.urlopen(self._request, timeout=60) as answer:
            for line in answer:
                if line.startswith(b"data: {"):
                    chunk = json.loads(line.removeprefix(b"data: "))
                    self.error = chunk.get("error", {}).get("code")
                    self.last = line
                    self.has_begun.set()

    def end(self) -> str | None:
        self._thread.join(60)
        return self.error


@contextlib.contextmanager
def slow_stack(folder: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[Stack]:
    config = echo_config(folder, "echo:random?rate=20")
    with running(folder / "data", "--config", str(config), *options, env=env) as stack:
        yield stack


def test_keys_end_on_every_edge_and_over_restarts_and_secrets_must_fit(tmp_path: Path, report: Report) -> None:
    with slow_stack(tmp_path, env={"INFERFLUX_POLICY_PASSPHRASE": PASSPHRASE}) as stack:
        issued = done(stack, "api-keys", "issue", "app", "--limit", "requests_per_minute=1000", "--expires-in", "90d")
        with edge_beside(stack) as beside:
            for url in (stack.url, beside.url):
                until(lambda url=url: status(url, issued["key"]) == 200, "the key opens the edge")  # type: ignore[misc]
            seen_at_both(stack.url, beside.url, full_or(100, reduced=20), report)
            seen_in_order(stack.url, beside.url, full_or(50, reduced=10))
            streams = [Streaming(url, issued["key"]) for url in (stack.url, beside.url)]
            for stream in streams:
                assert stream.has_begun.wait(30)
            assert done(stack, "api-keys", "revoke", "app")["revoked"] is True
            assert [stream.end() for stream in streams] == ["invalid_api_key"] * 2
            _end_key_of_the_file(stack, beside.url)
            for url in (stack.url, beside.url):
                assert status(url, issued["key"]) == 401
        _secrets_that_do_not_fit(stack)
        stack.stop()
        stack.start()
        assert (status(stack.url, KEY), status(stack.url, ADMIN_KEY)) == (401, 200)
        assert {key["status"] for key in done(stack, "api-keys", "list")["data"]} == {"active", "revoked"}
        log = stack.log_path.read_text()
        for secret in (issued["key"], PASSPHRASE, ADMIN_KEY):
            assert secret not in log


def _end_key_of_the_file(stack: Stack, other_url: str) -> None:
    """The stack's first key has no name; it is listed under a few digits of its hash."""
    keys = done(stack, "api-keys", "list")["data"]
    [name] = [key["id"] for key in keys if key["source"] == "file" and "admin" not in key["scopes"]]
    assert done(stack, "api-keys", "revoke", name)["id"] == name
    until(lambda: status(other_url, KEY) == 401, "the other edge knows")
    last = inferctl(stack, "api-keys", "revoke", next(key["id"] for key in keys if "admin" in key["scopes"]))
    assert (last.returncode, "nobody could administer" in last.stderr) == (1, True)


def _secrets_that_do_not_fit(stack: Stack) -> None:
    """An edge that cannot open the document ends with 3 and one line, and touches nothing."""
    copy = stack.data_dir / "policy.store"
    before, versions = copy.read_bytes(), done(stack, "policy", "versions")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    wrong: tuple[tuple[dict[str, str], str], ...] = (
        ({"INFERFLUX_POLICY_PASSPHRASE": "a wrong one"}, "this passphrase does not open it"),
        ({"INFERFLUX_POLICY_PASSPHRASE": ""}, "encrypted with a passphrase"),
        ({"INFERFLUX_KEY_PEPPER": "another"}, "INFERFLUX_KEY_PEPPER"),
    )
    with ThreadPoolExecutor() as pool:
        endings = list(pool.map(lambda each: refused_start(stack, **each[0]), wrong))
    for ended, (_, words) in zip(endings, wrong, strict=True):
        lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
        assert (ended.returncode, len(lines), words in lines[0]) == (3, 1, True), ended.stderr
        assert "a wrong one" not in ended.stderr
    assert (copy.read_bytes(), done(stack, "policy", "versions")) == (before, versions)


def test_administration_from_a_fresh_installation_on(tmp_path: Path) -> None:
    """From the well-known key to a passphrase of one's own, by commands."""
    dev = "dev-key-123"
    data_dir = tmp_path / "data"
    with running(data_dir, "--backend", "echo", env={"INFERFLUX_API_KEYS": ""}) as stack:
        assert dev in stack.log_path.read_text()
        nobody = refused_start(stack, "--host", "0.0.0.0")
        assert (nobody.returncode, "no API key" in nobody.stderr) == (3, True)
        first = inferctl(stack, "api-keys", "issue", "app", key=dev)
        assert (first.returncode, "scope 'admin' first" in first.stderr) == (1, True)
        root = inferctl(stack, "api-keys", "issue", "root", "--scope", "admin", key=dev)
        key = root.stdout.strip()
        assert (root.returncode, key.startswith("ifx_"), key in root.stderr) == (0, True, False)
        assert (status(stack.url, dev), status(stack.url, key)) == (401, 403)
        with edge_beside(stack, "edge-open", "--host", "0.0.0.0") as beside:
            assert status(beside.url, key) == 403
        assert stat.S_IMODE((data_dir / "policy.key").stat().st_mode) == 0o600

        shown = done(stack, "policy", "show", key=key)
        assert (shown["version"], shown["encryption"], shown["api_keys"]["store"]) == (1, "key file", 1)
        app = inferctl(stack, "api-keys", "issue", "app", "--scope", "generate", key=key).stdout.strip()
        rotated = inferctl(stack, "api-keys", "rotate", "app", "--grace", "0", key=key).stdout.strip()
        done(stack, "api-keys", "update", "app", "--scope", "read", "--limit", "tokens_per_day=5", key=key)
        assert [status(stack.url, each) for each in (app, rotated)] == [401, 200]
        rolled = done(stack, "policy", "rollback", "2", key=key)
        assert (rolled["version"], status(stack.url, app), status(stack.url, rotated)) == (5, 401, 200)
        done(stack, "policy", "reset", "limits", key=key)

        backup = tmp_path / "policy.backup"
        done(stack, "policy", "export", "--out", str(backup), "--passphrase", key=key, stdin=PASSPHRASE + "\n")
        assert stat.S_IMODE(backup.stat().st_mode) == 0o600
        done(stack, "api-keys", "revoke", "app", key=key)
        arguments = ("policy", "import", str(backup))
        wrong = inferctl(stack, *arguments, "--passphrase", key=key, stdin="nonsense\n")
        assert (wrong.returncode, "does not open it" in wrong.stderr, "nonsense" in wrong.stderr) == (1, True, False)
        done(stack, *arguments, "--passphrase", key=key, stdin=PASSPHRASE + "\n")
        assert status(stack.url, rotated) == 401

        done(stack, "policy", "rotate-passphrase", key=key, stdin=NEW_PASSPHRASE + "\n")
        table = inferctl(stack, "policy", "versions", key=key).stdout
        assert "policy.rotate_passphrase" in table
        stack.stop()
        stack.env["INFERFLUX_POLICY_PASSPHRASE"] = NEW_PASSPHRASE
        stack.start()
        assert (status(stack.url, dev), status(stack.url, key)) == (401, 403)
        log = stack.log_path.read_text()
        for secret in (key, app, rotated, PASSPHRASE, NEW_PASSPHRASE):
            assert secret not in log
