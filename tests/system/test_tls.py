"""A stack that is reached over TLS, as its operator and its users meet it."""

import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from ops.serving.edge import edge_config
from ops.settings.loader import load
from tests.support.certificates import Authority
from tests.support.ports import free_port
from tests.system.stack import ADMIN_KEY, KEY, Stack, alive, until

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]


def tool(name: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environ = {key: text for key, text in os.environ.items() if not key.startswith(("INFERFLUX_", "INFERCTL_"))}
    command = [sys.executable, "-m", f"ops.cli.{name}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ | more)


def test_a_stack_over_tls_from_start_to_a_new_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.issue("server")
    tls = {"INFERFLUX_SERVER__TLS__CERT": str(server.cert), "INFERFLUX_SERVER__TLS__KEY": str(server.key)}
    stack = Stack(tmp_path / "data", "--backend", "echo", env=tls)
    try:
        stack.launch()
        until(lambda: "\ntry " in stack.log_path.read_text(), f"up is ready; its log: {stack.log_path}", 60)
        address = f"https://localhost:{stack.port}"
        assert f"ready    {address}/v1" in stack.log_path.read_text()
        call = ("completion", "--prompt", "hello", "--host", address, "--api-key", KEY)

        answer = tool("inferctl", *call, "--ca-file", str(authority.ca))
        assert (answer.returncode, answer.stdout.strip()) == (0, "hello"), answer.stderr
        streamed = tool("inferctl", *call, "--stream", INFERCTL_CA_FILE=str(authority.ca))
        assert (streamed.returncode, streamed.stdout.strip()) == (0, "hello"), streamed.stderr
        strange = tool("inferctl", *call)
        assert strange.returncode == 1
        assert "certificate is not trusted" in strange.stderr and len(strange.stderr.splitlines()) == 1

        pid, first = stack.run["edge"]["pid"], ssl.get_server_certificate(("127.0.0.1", stack.port))
        authority.issue("server")
        os.kill(pid, signal.SIGHUP)
        until(lambda: ssl.get_server_certificate(("127.0.0.1", stack.port)) != first, "the new certificate")
        assert stack.run["edge"]["pid"] == pid and alive(pid)
        text = stack.log_path.read_text()
        assert not any(secret in text for secret in (KEY, ADMIN_KEY, "PRIVATE"))
    finally:
        assert stack.stop() == 0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"SERVER__TLS__CERT": "here.pem"}, "server.tls.cert and server.tls.key go together"),
        ({"SERVER__TLS__CLIENT_CA": "here.pem"}, "server.tls.client_ca"),
        ({"NATS__TLS__CA": "here.pem"}, "nats.url is not tls://"),
        ({"NATS__TLS__CA": "here.pem", "NATS_URL": "nats://127.0.0.1:1"}, "nats.url is not tls://"),
        ({"NATS__TLS__CA": "here.pem", "NATS_URL": "tls://127.0.0.1:1"}, "here.pem: No such file"),
        ({"SERVER__TLS__CERT": "here.pem", "SERVER__TLS__KEY": "here.pem"}, "here.pem: No such file"),
        ({"SERVER__CORS_ORIGINS": "app.example"}, "is not a list, each an origin such as https://app.example"),
    ],
)
def test_what_cannot_be_is_one_line_at_start(settings: dict[str, str], reason: str, tmp_path: Path) -> None:
    environ = {f"INFERFLUX_{name}": value.replace("here", str(tmp_path / "here")) for name, value in settings.items()}
    url = () if "NATS_URL" in settings else ("--nats-url", f"nats://127.0.0.1:{free_port()}")
    if "NATS__TLS__CA" in settings and "NATS_URL" not in settings:
        url = ()
    done = tool("inferflux", "edge", "--data-dir", str(tmp_path / "data"), "--port", "0", *url, **environ)
    assert done.returncode == 3, done.stderr
    assert reason in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("host", "is_warned"), [("0.0.0.0", True), ("edge.example", True), ("localhost", False)])
def test_a_host_that_others_reach_without_tls_is_warned_about(
    host: str, is_warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load({"INFERFLUX_API_KEYS": "a-key", "INFERFLUX_DATA_DIR": str(tmp_path)}, {"--host": host})
    edge_config(settings, "e1")
    assert ("speaks no TLS" in caplog.text) is is_warned
    caplog.clear()
    with_tls = {"INFERFLUX_SERVER__TLS__CERT": "c.pem", "INFERFLUX_SERVER__TLS__KEY": "k.pem"}
    edge_config(
        load({"INFERFLUX_API_KEYS": "a-key", "INFERFLUX_DATA_DIR": str(tmp_path)} | with_tls, {"--host": host}), "e1"
    )
    assert not caplog.text
