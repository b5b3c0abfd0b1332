"""From `hf:…` to a path on this machine."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ops.hub.api import DEFAULT_ENDPOINT, HubApi
from ops.hub.choice import Wanted, choose
from ops.hub.download import RemoteFile, download, require_space, size_of
from ops.hub.errors import HubError, HubUnreachable, NotHere
from ops.hub.listing import Listing
from ops.hub.reference import HubReference, parse
from ops.hub.store import RepoStore

log = logging.getLogger("inferflux.hub")

# Bytes that are there, bytes that there will be.
Progress = Callable[[int, int], None]
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class HubConfig:
    """`retry_wait_s` grows with every attempt that brings nothing."""

    models_dir: Path
    allow_downloads: bool = True
    endpoint: str = DEFAULT_ENDPOINT
    token: str | None = field(default=None, repr=False)
    timeout_s: float = 30.0
    retry_wait_s: float = 1.0


class Hub:
    """Blocking; any number of threads and processes may fetch at once, and a file is downloaded once."""

    def __init__(self, config: HubConfig) -> None:
        self._config = config
        self._api = HubApi(config.endpoint, config.token, timeout_s=config.timeout_s)

    def fetch(self, source: str, progress: Progress | None = None) -> Path:
        """The file or folder that `source` names, downloaded unless it is here. Raises HubError in one line.

        With a commit as revision nobody is asked once all is here. A branch or tag is asked for each time; when the hub
        cannot be reached, or may not be, what it was last is taken. What `progress` raises ends the download.
        """
        reference = parse(source)
        store = RepoStore(self._config.models_dir, reference)
        try:
            return self._fetch(reference, store, progress or _silent)
        except OSError as error:
            raise HubError(f"{reference}: {error.filename or store.folder}: {error.strerror}") from None

    def _fetch(self, reference: HubReference, store: RepoStore, progress: Progress) -> Path:
        listing, wanted = self._find(reference, store)
        if not _is_complete(store, listing, wanted):
            self._download(reference, store, listing, wanted, progress)
        return store.commit_folder(listing.commit) / wanted.location

    def _find(self, reference: HubReference, store: RepoStore) -> tuple[Listing, Wanted]:
        recalled = store.recall(reference.revision)
        if recalled is not None and (reference.is_pinned or not self._config.allow_downloads):
            return recalled, choose(reference, recalled)
        if not self._config.allow_downloads:
            raise self._forbidden(reference)
        try:
            listing = self._api.listing(reference)
        except HubUnreachable as error:
            if recalled is None or not _is_complete(store, recalled, choose(reference, recalled)):
                raise
            log.warning("%s; taking what it was last, commit %s", error, recalled.commit)
            return recalled, choose(reference, recalled)
        wanted = choose(reference, listing)
        store.remember(reference.revision, listing)
        return listing, wanted

    def _download(
        self, reference: HubReference, store: RepoStore, listing: Listing, wanted: Wanted, progress: Progress
    ) -> None:
        if not self._config.allow_downloads:
            raise self._forbidden(reference)

        def tell() -> None:
            progress(_present(store, listing, wanted), wanted.size)

        def wait() -> None:
            tell()  # of what another process downloads
            time.sleep(_LOOK_EVERY_S)

        with store.locked(wait):
            require_space(reference, store.folder, wanted.size - _present(store, listing, wanted))
            tell()
            for file in wanted.files:
                if store.has(listing.commit, file):
                    continue
                before = _present(store, listing, wanted) - size_of(store.partial(file))
                partial = store.partial(file)
                download(
                    RemoteFile(self._api, reference, listing.commit, file),
                    partial,
                    lambda done, before=before: progress(before + done, wanted.size),  # type: ignore[misc]
                    retry_wait_s=self._config.retry_wait_s,
                )
                store.take(listing.commit, file, partial)
            tell()
        log.info("%s is here, commit %s", reference, listing.commit)

    def _forbidden(self, reference: HubReference) -> NotHere:
        return NotHere(f"{reference}: it is not on this machine, and registry.allow_downloads is false")


def hub_from(environ: Mapping[str, str], models_dir: Path, *, allow_downloads: bool) -> Hub:
    """With the address in `HF_ENDPOINT` and the token in `HF_TOKEN`, where they are set. Raises HubError."""
    endpoint, token = environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT, environ.get("HF_TOKEN", "").strip() or None
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise HubError("HF_TOKEN holds something else than a token")
    return Hub(HubConfig(models_dir, allow_downloads, endpoint, token))


def _is_complete(store: RepoStore, listing: Listing, wanted: Wanted) -> bool:
    return all(store.has(listing.commit, file) for file in wanted.files)


def _present(store: RepoStore, listing: Listing, wanted: Wanted) -> int:
    """Bytes that are here, finished or not."""
    folder = store.commit_folder(listing.commit)
    sizes = (size_of(folder / file.path) or size_of(store.partial(file)) for file in wanted.files)
    return min(sum(sizes), wanted.size)


def _silent(done: int, total: int) -> None:
    pass
