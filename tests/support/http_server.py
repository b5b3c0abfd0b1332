"""An HTTP server whose every answer a test decides."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ops.client.client import Client

Answer = Callable[[BaseHTTPRequestHandler], None]
Serve = Callable[[Answer], Client]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start one, and get a client of it."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> Client:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            do_POST = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return Client("127.0.0.1", server.server_port, None)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def reply(status: int, body: bytes) -> Answer:
    """The same answer to everything."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer
