"""TLS of a listening server, which follows its files: new connections get what is in them now, old ones go on."""

import asyncio
import ssl
from pathlib import Path

import structlog

from broker.pem import PemUnusable, load_authorities, load_pair
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
    try:
        load_pair(context, files.cert, files.key)
        if files.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            load_authorities(context, files.client_ca)
    except PemUnusable as error:
        raise TlsUnusable(str(error)) from None
    return context


def _mark(path: Path) -> tuple[int, int, int] | None:
    """What tells one state of a file from another."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
