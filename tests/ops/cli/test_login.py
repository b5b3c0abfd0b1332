"""`inferctl login` in real processes: a server that takes tokens alone, a real provider, and a person at its pages."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.oidc import AUDIENCE, CLI, Keys, Provider, running_provider
from tests.system.stack import Stack, running

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]

COMMAND = [sys.executable, "-m", "ops.cli.inferctl"]
# Shorter than what is renewed ahead of its end: every command renews it.
TTL_S = 20


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with running_provider(tmp_path_factory.mktemp("provider"), Keys(), ttl_s=TTL_S) as provider:
        yield provider


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Stack]:
    """A server without any key, on a host that can be reached from elsewhere."""
    env = {
        "INFERFLUX_API_KEYS": "",
        "INFERFLUX_LOG_LEVEL": "debug",
        "INFERFLUX_OIDC_ISSUER": provider.issuer,
        "INFERFLUX_OIDC_AUDIENCE": AUDIENCE,
        "INFERFLUX_AUTH__OIDC__CLIENT_ID": CLI,
        "INFERFLUX_AUTH__OIDC__LOGIN_SCOPES": "openid,offline_access,generate,read",
    }
    with running(tmp_path_factory.mktemp("up") / "data", "--backend", "echo", "--host", "0.0.0.0", env=env) as stack:
        yield stack


class User:
    """Somebody's terminal: `inferctl` with a home of its own, and no key."""

    def __init__(self, folder: Path, port: int) -> None:
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("INFERCTL_")},
            "INFERCTL_HOST": "127.0.0.1",
            "INFERCTL_PORT": str(port),
            "XDG_CONFIG_HOME": str(folder),
        }
        self.file = folder / "inferflux" / "credentials.json"

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*COMMAND, *arguments],
            # Ignored in what a shell runs in the background, the suite for instance, and inherited from there.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=self._environ,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def begin_login(self) -> "tuple[subprocess.Popen[str], str]":
        """A login that waits, and the address it shows."""
        process = self.start("login")
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        assert "confirm the code" in second, (first, second, process.communicate()[1])
        return process, first.removeprefix("Open ").strip()

    def tokens(self) -> list[str]:
        (login,) = json.loads(self.file.read_text())["servers"].values()
        return [login["access_token"], login["refresh_token"]]


@pytest.fixture
def user(tmp_path: Path, trusting: Stack) -> User:
    return User(tmp_path / "config", trusting.port)


def test_a_login_from_begin_to_end(user: User, provider: Provider, trusting: Stack) -> None:
    code, out, err = user.run("models")
    assert (code, out, "API key" in err) == (1, "", True)

    process, url = user.begin_login()
    provider.confirm(url)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err, "Logged in" in out) == (0, "", True)
    assert stat.S_IMODE(user.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(user.file.parent.stat().st_mode) == 0o700
    first = user.tokens()
    assert not any(token in out for token in first)

    code, out, err = user.run("completion", "--prompt", "hello", "--temperature", "0")
    assert (code, out) == (0, "hello\n")
    renewed = user.tokens()
    assert renewed[0] != first[0] and renewed[1] != first[1]
    # Many at once: each token renews once only, and the provider withdraws all when one is used twice.
    processes = [user.start("models") for _ in range(2)]
    assert [each.communicate(timeout=60)[1] for each in processes] == ["", ""]
    assert [each.returncode for each in processes] == [0, 0]
    # A key that is named comes first.
    assert user.run("models", "--api-key", "wrong")[0] == 1

    log = trusting.log_path.read_text()
    assert not any(part in log for token in (*first, *renewed, *user.tokens()) for part in token.split("."))

    assert user.run("logout")[0] == 0
    assert json.loads(user.file.read_text()) == {"servers": {}}
    assert provider.num_requests("/token/revocation") == 1
    assert user.run("models")[0] == 1
    assert "Not logged in" in user.run("logout")[1]


def test_a_login_that_is_refused(user: User, provider: Provider) -> None:
    process, url = user.begin_login()
    provider.confirm(url, is_refused=True)
    assert process.communicate(timeout=60)[1] == "error: the login was refused\n"
    assert process.returncode == 1
    assert not user.file.exists()


def test_a_login_that_is_given_up(user: User) -> None:
    process, _ = user.begin_login()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, "", "")
    assert not user.file.exists()


def test_an_issuer_that_is_no_issuer(user: User, trusting: Stack) -> None:
    code, _, err = user.run("login", "--issuer", trusting.url, "--client-id", "x")
    assert (code, err) == (1, f"error: there is no OpenID issuer at {trusting.url}\n")
    code, _, err = user.run("login", "--issuer", "http://login.example", "--client-id", "x")
    assert (code, "https://" in err) == (1, True)
