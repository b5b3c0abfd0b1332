"""The NATS configurations that operators take, with a stack on them."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.credentials import Login, create_credentials, find_login
from broker.roles import FIXED_USERS
from broker.server import find_binary
from broker.server_config import password_variable
from tests.support.certificates import Authority
from tests.support.ports import free_ports
from tests.system.stack import ADMIN_KEY, KEY, fetch, running
from tests.system.test_tls import tool

DEPLOY = Path(__file__).parents[2] / "ops" / "deploy" / "nats"
CONFIGS = ("server.conf", "cluster.conf")

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]


def environment(directory: Path) -> dict[str, str]:
    """What a server is told. The passwords are those of the files that its clients get."""
    port, cluster, monitor = free_ports(3)
    logins = create_credentials(directory / "creds")
    return {
        "NATS_NAME": "n1",
        "NATS_STORE": str(directory / "store"),
        "NATS_MAX_FILE": "2GB",
        "NATS_LISTEN": f"127.0.0.1:{port}",
        "NATS_CLUSTER": f"127.0.0.1:{cluster}",
        "NATS_MONITOR": f"127.0.0.1:{monitor}",
        "NATS_ROUTES": f"[nats://route:secret@127.0.0.1:{cluster}]",
        "NATS_ROUTE_PASSWORD": "secret",
        **{password_variable(user): login.password for user, login in logins.items()},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A server's folder with the files as they are in the repository."""
    for path in DEPLOY.glob("*.conf"):
        shutil.copy(path, tmp_path)
    return tmp_path


def check(folder: Path, name: str, environ: dict[str, str]) -> None:
    command = [find_binary(), "-t", "-c", str(folder / name)]
    done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", CONFIGS)
def test_a_server_takes_it_with_either_accounts_file(folder: Path, name: str) -> None:
    environ = environment(folder)
    check(folder, name, environ)
    accounts = folder / "accounts.conf"
    made = tool("inferflux", "topology", "credentials", "--out", str(folder / "creds"), "--accounts", str(accounts))
    assert (made.returncode, made.stdout) == (0, "")
    assert accounts.stat().st_mode & 0o077 == 0
    check(folder, name, {key: value for key, value in environ.items() if "PASSWORD_" not in key})


@contextmanager
def serving(folder: Path, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [find_binary(), "-c", str(folder / "server.conf")]
    with (folder / "nats.log").open("ab") as log:
        process = subprocess.Popen(command, env=os.environ | environ, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def complete(url: str, prompt: str) -> str:
    answer = fetch(f"{url}/v1/completions", body={"prompt": prompt})
    return str(answer["choices"][0]["text"])


def test_a_stack_serves_on_it_over_tls_and_exchanges_a_login(folder: Path) -> None:
    environ, authority, creds = environment(folder), Authority(folder), folder / "creds"
    own = authority.issue("nats")
    config = folder / "server.conf"
    tls = f'tls {{ cert_file: "{own.cert}", key_file: "{own.key}" }}\n'
    config.write_text(
        config.read_text().replace("# tls {", "# {").replace("include accounts", f"{tls}include accounts")
    )
    url = f"tls://{environ['NATS_LISTEN']}"
    options = ("--backend", "echo", "--nats-url", url, "--nats-credentials", str(creds))
    with (
        serving(folder, environ) as server,
        running(
            folder / "data",
            *options,
            env={"INFERFLUX_NATS__TLS__CA": str(authority.ca), "INFERFLUX_NATS__MAX_FILE_BYTES": "1GiB"},
        ) as stack,
    ):
        assert complete(stack.url, "hello") == "hello"
        pids = [stack.run["edge"]["pid"], *(worker["pid"] for worker in stack.run["workers"])]
        old = {user: find_login(creds, *user) for user in FIXED_USERS}
        accounts = ("--out", str(creds), "--accounts", str(folder / "accounts.conf"))
        for step in (("--rotate", "all"), ("--finish",)):
            assert tool("inferflux", "topology", "credentials", *step, *accounts).returncode == 0
            server.send_signal(signal.SIGHUP)
            assert complete(stack.url, "hello again") == "hello again"
        assert [stack.run["edge"]["pid"], *(worker["pid"] for worker in stack.run["workers"])] == pids
        for user, login in old.items():
            assert isinstance(login, Login) and find_login(creds, *user) != login
            assert login.password not in stack.log_path.read_text()
        assert not any(secret in (folder / "nats.log").read_text() for secret in (KEY, ADMIN_KEY))
