"""What a hub says about one commit of a repository: its files, their sizes and what their bytes hash to."""

import json
from typing import Any, NamedTuple

from ops.hub.reference import is_commit, is_safe_path


class HubFile(NamedTuple):
    """A large file has its `sha256`; a small one, which lies in git itself, git's own hash (`blob`)."""

    path: str
    size: int
    sha256: str | None
    blob: str | None

    @property
    def digest(self) -> str:
        """What its bytes are known by; it names unfinished downloads."""
        return self.sha256 or self.blob or ""


class Listing(NamedTuple):
    commit: str
    files: tuple[HubFile, ...]

    def file(self, path: str) -> HubFile | None:
        return next((file for file in self.files if file.path == path), None)


def read_listing(document: Any) -> Listing:
    """From the hub's JSON, or from our own memory of it. Raises ValueError: it is something else.

    Files whose paths would lead out of their folder, or that have no hash, are left out: they cannot be asked for.
    """
    try:
        commit, siblings = document["sha"], document["siblings"]
        if not is_commit(commit):
            raise ValueError(f"{commit!r} is no commit")
        files = [_read_file(sibling) for sibling in siblings]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not what a hub says of a repository ({error!r})") from None
    return Listing(commit, tuple(file for file in files if is_safe_path(file.path) and file.digest))


def to_json(listing: Listing) -> str:
    """In the hub's form."""
    siblings = [_file_document(file) for file in listing.files]
    return json.dumps({"sha": listing.commit, "siblings": siblings}, indent=1)


def _read_file(sibling: dict[str, Any]) -> HubFile:
    lfs = sibling.get("lfs") or {}
    size = lfs.get("size", sibling.get("size"))
    sha256, blob = lfs.get("sha256"), sibling.get("blobId")
    if not isinstance(size, int):
        return HubFile("", 0, None, None)
    return HubFile(
        str(sibling["rfilename"]), size, _hex(sha256, 64), _hex(blob, 40) if sha256 is None and not lfs else None
    )


def _hex(value: Any, length: int) -> str | None:
    is_hex = isinstance(value, str) and len(value) == length and all(char in "0123456789abcdef" for char in value)
    return value if is_hex else None


def _file_document(file: HubFile) -> dict[str, Any]:
    known: dict[str, Any] = {"rfilename": file.path, "size": file.size}
    return known | (
        {"blobId": file.blob} if file.sha256 is None else {"lfs": {"sha256": file.sha256, "size": file.size}}
    )
