"""`hf:<org>/<repo>[/<file>][@<revision>]`, taken apart."""

import re
from typing import NamedTuple

from ops.hub.errors import HubError

PREFIX = "hf:"
DEFAULT_REVISION = "main"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubReference(NamedTuple):
    """`file` None: the repository's one model. `revision` is a branch, a tag or a commit."""

    org: str
    repo: str
    file: str | None
    revision: str

    @property
    def name(self) -> str:
        return f"{self.org}/{self.repo}"

    @property
    def is_pinned(self) -> bool:
        """Whether it means the same bytes for ever."""
        return is_commit(self.revision)

    def __str__(self) -> str:
        file = "" if self.file is None else f"/{self.file}"
        revision = "" if self.revision == DEFAULT_REVISION else f"@{self.revision}"
        return f"{PREFIX}{self.name}{file}{revision}"


def is_hub_source(source: str) -> bool:
    return source.startswith(PREFIX)


def is_commit(revision: str) -> bool:
    return _COMMIT.fullmatch(revision) is not None


def parse(source: str) -> HubReference:
    """Raises HubError that names what is wrong."""
    path, at, revision = source.removeprefix(PREFIX).rpartition("@")
    if not at:
        path, revision = revision, DEFAULT_REVISION
    org, _, rest = path.partition("/")
    repo, slash, file = rest.partition("/")
    if not (_NAME.fullmatch(org) and _NAME.fullmatch(repo)) or (slash and not is_safe_path(file)):
        raise HubError(f"{source}: a model of a hub is written {PREFIX}<org>/<repo>[/<file>][@<revision>]")
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise HubError(f"{source}: {revision!r} is no revision; give a branch, a tag or a commit")
    return HubReference(org, repo, file if slash else None, revision)


def is_safe_path(path: str) -> bool:
    """Whether a path of a repository stays inside the folder that it is put in, and hides nothing."""
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and all(part and not part.startswith(".") for part in parts)
