"""`inferctl chat --interactive` in a real terminal."""

import json
import os
import pty
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import FileIO

import pytest


class Server:
    """Says the beginning of an answer, then nothing, until the client leaves. Keeps the messages it was sent."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, str]]] = []
        self.left = threading.Semaphore(0)
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append(body["messages"])
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'data: {"choices": [{"delta": {"content": "It was "}}]}\n\n')
                self.connection.recv(1)  # returns when the client has closed
                server.left.release()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield server
    server.http.shutdown()
    server.http.server_close()


def read_until(screen: FileIO, words: bytes) -> None:
    seen = b""
    while words not in seen:
        seen += screen.read(1) or b""


def test_ctrl_c_stops_the_answer_and_not_the_conversation(server: Server) -> None:
    environ = {**os.environ, "TERM": "dumb", "INFERCTL_API_KEY": "k"}
    arguments = ["chat", "-i", "--host", "127.0.0.1", "--port", str(server.http.server_port)]
    pid, terminal = pty.fork()
    if pid == 0:
        # Ignored in what a shell runs in the background, the suite for instance, and inherited from there.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execve(sys.executable, [sys.executable, "-m", "ops.cli.inferctl", *arguments], environ)
    with open(terminal, "r+b", buffering=0) as screen:
        for question in (b"a question", b"another"):
            read_until(screen, b"> ")
            screen.write(question + b"\n")
            read_until(screen, b"It was ")
            os.kill(pid, signal.SIGINT)
            read_until(screen, b"(stopped)")
            assert server.left.acquire(timeout=30), "the server was not left"
        read_until(screen, b"> ")
        screen.write(b"\x04")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert server.asked[1] == [
        {"role": "user", "content": "a question"},
        {"role": "assistant", "content": "It was "},
        {"role": "user", "content": "another"},
    ]
