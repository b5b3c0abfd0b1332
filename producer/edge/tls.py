"""TLS of a listening server, which follows its files: new connections get what is in them now, old ones go on."""

import asyncio
import ssl
from pathlib import Path

import structlog

from producer.config import TlsFiles

_log = structlog.stdlib.get_logger("inferflux.edge.tls")

_LOOK_EVERY_S = 5.0


class TlsUnusable(Exception):
    """A file is missing, or is not what it should be. One line that names it."""


class FollowingTls:
    """`current` is for the next connection. `reload` reads the files again; what is unusable changes nothing."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises TlsUnusable."""
        self._files = files
        self._marks = self._look()
        self.current = _read(files)

    def reload(self) -> None:
        self._marks = self._look()
        try:
            self.current = _read(self._files)
        except TlsUnusable as error:
            _log.error("the certificate stays as it was", reason=str(error))
            return
        _log.info("certificate read again", cert=str(self._files.cert))

    async def follow(self) -> None:
        """Read the files again whenever one of them has changed. Until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if self._look() != self._marks:
                self.reload()

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_mark(path) for path in self._files if path is not None]


def _read(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    for path in files:
        if path is not None:
            _require_readable(path)
    try:
        # A password would be asked for on the terminal.
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise TlsUnusable(f"{files.cert} and {files.key}: {_reason(error)}") from None
    if files.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(files.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise TlsUnusable(f"{files.client_ca}: {_reason(error)}") from None
    return context


def _require_readable(path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise TlsUnusable(f"{path}: {error.strerror}") from None


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one that is not, readable by this user alone")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not a usable certificate or key ({error.reason or 'no PEM'})".lower().replace("_", " ")
    return str(error)


def _mark(path: Path) -> tuple[int, int, int] | None:
    """What tells one state of a file from another."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
