"""A hub on this machine: the endpoints that downloads use, and the ways in which they go wrong."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_LARGE = 64  # from so many bytes on a file is a large one, with a SHA-256


@dataclass
class Repo:
    """`branches` names commits; `commits` their files."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    is_gated: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        commit = hashlib.sha1(json.dumps([branch, len(self.commits), sorted(files)]).encode()).hexdigest()
        self.commits[commit], self.branches[branch] = files, commit
        return commit

    def listing(self, revision: str) -> dict[str, Any] | None:
        commit = self.branches.get(revision, revision)
        if commit not in self.commits:
            return None
        return {"sha": commit, "siblings": [_sibling(path, data) for path, data in self.commits[commit].items()]}


@dataclass
class Request:
    path: str
    start: int
    token: str | None
    host: str


class FakeHub:
    """`cuts`: after how many bytes each next download breaks off. `wrong`: how many of the next have other bytes.

    `held`: cleared, downloads wait after the first `hold_after` bytes. `claimed`: sizes that the listing lies about.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.cuts: list[int] = []
        self.wrong = 0
        self.statuses: list[int] = []
        self.ignores_ranges = False
        self.claimed: dict[str, int] = {}
        self.hold_after = 1
        self.is_holding = threading.Event()
        self.held = threading.Event()
        self.held.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        # Another host, as far as a client can tell: tokens must not go there.
        self.storage = f"http://localhost:{self.port}"
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def repo(self, name: str, files: dict[str, bytes] | None = None) -> Repo:
        repo = self.repos.setdefault(name, Repo())
        if files is not None:
            repo.commit(files)
        return repo

    def downloads(self, name: str = "") -> list[Request]:
        """What was asked of the storage, for files that end so."""
        return [each for each in self.requests if each.path.startswith("/storage/") and each.path.endswith(name)]

    @contextlib.contextmanager
    def running(self) -> Iterator["FakeHub"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stop()
            thread.join()

    def stop(self) -> None:
        """From now on nobody listens."""
        self.held.set()
        self._server.shutdown()
        self._server.server_close()


def _sibling(path: str, data: bytes) -> dict[str, Any]:
    if len(data) < _LARGE:
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return {"rfilename": path, "size": len(data), "blobId": blob}
    lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return {"rfilename": path, "size": len(data), "blobId": "0" * 40, "lfs": lfs}


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            token = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
            start = int((self.headers.get("range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            hub.requests.append(Request(unquote(path), start, token, self.headers["host"]))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._answer(path, token, start)

        def _answer(self, path: str, token: str | None, start: int) -> None:
            if hub.statuses:
                self._refuse(hub.statuses.pop(0), "")
            elif path.startswith("/api/models/"):
                org, repo, _, revision = path.removeprefix("/api/models/").split("/", 3)
                self._list(f"{org}/{repo}", unquote(revision), token)
            elif path.startswith("/storage/"):
                self._send(*unquote(path).removeprefix("/storage/").split("/", 3), start)
            else:
                self._redirect(*unquote(path).strip("/").split("/", 4), token)

        def _list(self, name: str, revision: str, token: str | None) -> None:
            repo = self._opened(name, token)
            if repo is None:
                return
            listing = repo.listing(revision)
            if listing is None:
                self._refuse(404, "RevisionNotFound")
                return
            for sibling in listing["siblings"]:
                if (size := hub.claimed.get(sibling["rfilename"])) is not None:
                    sibling["lfs"]["size"] = sibling["size"] = size
            self._whole(200, json.dumps(listing).encode(), {"content-type": "application/json"})

        def _redirect(self, org: str, repo: str, _: str, commit: str, path: str, token: str | None) -> None:
            if self._opened(f"{org}/{repo}", token) is not None:
                self._whole(302, b"", {"location": f"{hub.storage}/storage/{org}/{repo}/{commit}/{path}"})

        def _opened(self, name: str, token: str | None) -> Repo | None:
            repo = hub.repos.get(name)
            if repo is None:
                self._refuse(401 if token is None else 404, "RepoNotFound")
            elif repo.token is not None and token != repo.token:
                self._refuse(401 if token is None else 403, "GatedRepo" if repo.is_gated else "RepoNotFound")
                return None
            return repo

        def _send(self, org: str, repo: str, commit: str, path: str, start: int) -> None:
            data = hub.repos[f"{org}/{repo}"].commits[commit][path]
            if hub.wrong:
                hub.wrong -= 1
                data = bytes(len(data))
            start = 0 if hub.ignores_ranges else start
            if start >= len(data) > 0:
                self._refuse(416, "")
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("content-range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("content-length", str(len(data) - start))
            self.end_headers()
            end = hub.cuts.pop(0) if hub.cuts else len(data)
            first = min(hub.hold_after, end)
            self.wfile.write(data[start:][:first])
            self.wfile.flush()
            if not hub.held.is_set():
                hub.is_holding.set()
                hub.held.wait()
            self.wfile.write(data[start:][first:end])
            if end < len(data) - start:
                self.close_connection = True

        def _refuse(self, status: int, code: str) -> None:
            self._whole(status, b"{}", {"x-error-code": code} if code else {})

        def _whole(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
