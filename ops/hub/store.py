"""Where models of a hub lie: `<data-dir>/models/<org>/<repo>/<commit>/<file>`, and what is remembered beside them.

<commit>/model.gguf            whole and checked
<commit>/model.gguf.sha256     its hash, as `sha256sum -c` reads it; without it the file is read again before use
.hub/<commit>.json             what the hub said of the commit
.hub/refs/<revision>           the commit that a branch or tag was when it was last asked for
.hub/<hash>.partial            a download that is under way, or was cut off
.hub/lock                      held while files are added
"""

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from ops.hub.download import is_intact
from ops.hub.listing import HubFile, Listing, read_listing, to_json
from ops.hub.reference import HubReference

_MEMORY = ".hub"
_NOTE = ".sha256"


class RepoStore:
    """The files of one repository. All of it raises OSError."""

    def __init__(self, models_dir: Path, reference: HubReference) -> None:
        self.folder = models_dir / reference.org / reference.repo
        self._memory = self.folder / _MEMORY

    def commit_folder(self, commit: str) -> Path:
        return self.folder / commit

    def partial(self, file: HubFile) -> Path:
        return self._memory / f"{file.digest}.partial"

    def prepare(self) -> None:
        (self._memory / "refs").mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self, on_wait: Callable[[], None]) -> Iterator[None]:
        """While nobody else adds files. The end of a process, whatever ends it, gives the lock back.

        `on_wait` is called again and again while another holds it, and has to take its time.
        """
        self.prepare()
        descriptor = os.open(self._memory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    on_wait()
            yield
        finally:
            os.close(descriptor)

    def remember(self, revision: str, listing: Listing) -> None:
        self.prepare()
        path = self._memory / f"{listing.commit}.json"
        if not path.exists():
            _write_whole(path, to_json(listing))
        if revision != listing.commit:
            _write_whole(self._ref(revision), listing.commit)

    def recall(self, revision: str) -> Listing | None:
        """What is known of a revision without asking; None when nothing is."""
        with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
            revision = self._ref(revision).read_text().strip()
        try:
            listing = read_listing(json.loads((self._memory / f"{quote(revision, safe='')}.json").read_bytes()))
        except (FileNotFoundError, ValueError):
            return None
        return listing if listing.commit == revision else None

    def has(self, commit: str, file: HubFile) -> bool:
        """Whether the file is here and was checked. One that nobody vouches for is read, and removed when wrong."""
        path = self.commit_folder(commit) / file.path
        try:
            if path.stat().st_size == file.size and _vouched(path) == (file.sha256 or file.blob):
                return True
        except FileNotFoundError:
            return False
        if is_intact(path, file):
            self._vouch(path, file)
            return True
        path.unlink()
        return False

    def take(self, commit: str, file: HubFile, partial: Path) -> None:
        """A checked download becomes the file."""
        path = self.commit_folder(commit) / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(path)
        self._vouch(path, file)

    def _vouch(self, path: Path, file: HubFile) -> None:
        if file.sha256 is not None:
            _write_whole(_note(path), f"{file.sha256}  {path.name}\n")

    def _ref(self, revision: str) -> Path:
        return self._memory / "refs" / quote(revision, safe="")


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    temporary.write_text(text)
    temporary.replace(path)


def _note(path: Path) -> Path:
    return path.with_name(path.name + _NOTE)


def _vouched(path: Path) -> str | None:
    try:
        return _note(path).read_text().split(" ", 1)[0]
    except (FileNotFoundError, UnicodeDecodeError):
        return None
