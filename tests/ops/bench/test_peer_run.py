"""A run against a program that takes llama-server's place: found, started, asked, ended, reported."""

import json
import socket
import sys
from pathlib import Path

import pytest

from ops.bench.command import run

PEER = """#!{python}
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

given = dict(zip(sys.argv[1:], sys.argv[2:]))
if "--version" in sys.argv:
    print("version: 1 (peer)", file=sys.stderr)
    sys.exit()

class Peer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b"ok")

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        usage = {{"prompt_tokens": 3, "completion_tokens": asked["max_tokens"] - {short}}}
        chunks = [{{"choices": [{{"index": 0, "text": "x"}}]}}, {{"choices": [], "usage": usage}}]
        payloads = [*map(json.dumps, chunks), "[DONE]"]
        self.answer("".join(f"data: {{payload}}\\n\\n" for payload in payloads).encode())

    def answer(self, body):
        self.send_response({status} if self.command == "POST" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

with open("{port_file}", "w") as file:
    file.write(given["--port"])
ThreadingHTTPServer((given["--host"], int(given["--port"])), Peer).serve_forever()
"""


class Bench:
    """The command with a peer whose answers are `short` tokens too short and have that HTTP status."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._monkeypatch = monkeypatch

    def __call__(self, *, short: int = 0, status: int = 200) -> int:
        binary, model = self._folder / "llama-server", self._folder / "small.gguf"
        binary.write_text(PEER.format(python=sys.executable, short=short, status=status, port_file=self._port_file))
        binary.chmod(0o755)
        model.write_bytes(b"GGUF")
        options = {"--arms": "llama-server", "--llama-server": binary, "--model": model, "--out": self._folder / "out"}
        options |= {"--rounds": "2", "--concurrency": "1,3", "--shared": "2", "--requests": "4", "--max-tokens": "6"}
        self._monkeypatch.setattr(
            sys, "argv", ["bench", "--no-quality", *(str(text) for pair in options.items() for text in pair)]
        )
        return run()

    @property
    def _port_file(self) -> Path:
        return self._folder / "port"

    def is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", int(self._port_file.read_text()))) == 0


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def test_a_run_ends_with_its_record_and_its_peer(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench() == 0
    assert not bench.is_listening()
    (record,) = (tmp_path / "out").glob("*.json")
    document = json.loads(record.read_text())
    assert document["arms"]["llama-server"]["version"] == "version: 1 (peer)"
    found = {
        count: [one["output_tokens"] for one in each] for count, each in document["rounds"]["llama-server"].items()
    }
    assert found == {"c=1": [4 * 6, 4 * 6], "c=3": [6 * 6, 6 * 6], "shared c=2": [4 * 6, 4 * 6]}
    assert "| llama-server |        c=1 |        4 |" in capsys.readouterr().out


def test_short_answers_are_told(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(short=1) == 0
    printed = capsys.readouterr().out
    assert "llama-server at c=3: 12 answers had another number of tokens than asked for" in printed


def test_a_failing_peer_is_a_failure_with_its_reason(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(status=500) == 1
    assert not bench.is_listening()
    assert "- llama-server: round 1: c=3: HTTP 500" in capsys.readouterr().out
