"""The files for TLS: do they fit together, and for how long."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from ops.doctor.check import Check
from ops.settings.settings import Settings, TlsSettings
from producer.config import TlsFiles
from producer.edge.tls import FollowingTls, TlsUnusable

SOON = timedelta(days=14)


def check_certificates(settings: Settings, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> list[Check]:
    checks = []
    if (tls := settings.server.tls) is not None:
        checks.append(_pair("TLS", tls) or _expiry("TLS", [tls.cert, tls.ca], now()))
    if (tls := settings.nats.tls) is not None:
        checks.append(_expiry("TLS to NATS", [tls.cert, tls.ca], now()))
    return checks


def _pair(name: str, tls: TlsSettings) -> Check | None:
    """What is wrong with certificate and key of the server, None when they can be used."""
    if tls.cert is None or tls.key is None:
        return None
    try:
        FollowingTls(TlsFiles(tls.cert, tls.key, tls.ca))
    except TlsUnusable as error:
        return Check(name, False, str(error), "give PEM files that belong together: server.tls.cert, server.tls.key")
    return None


def _expiry(name: str, paths: list[Path | None], now: datetime) -> Check:
    """The first certificate of each file is the one that counts; a chain behind it is its authority's affair."""
    soonest: tuple[datetime, Path] | None = None
    for path in paths:
        if path is None:
            continue
        try:
            certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
        except OSError as error:
            return Check(name, False, f"{path}: {error.strerror}", f"chmod a+r {path}")
        except ValueError:
            return Check(name, False, f"{path}: no certificate in PEM form", f"replace {path}")
        if now < certificate.not_valid_before_utc:
            return Check(name, False, f"{path}: not valid before {certificate.not_valid_before_utc}", f"replace {path}")
        ends = certificate.not_valid_after_utc
        soonest = min(soonest, (ends, path)) if soonest else (ends, path)
    if soonest is None:
        return Check(name, True, "with the system's authorities")
    ends, path = soonest
    if ends <= now:
        return Check(name, False, f"{path}: expired on {ends:%Y-%m-%d}", f"replace {path}")
    if ends - now < SOON:
        detail = f"{path}: expires on {ends:%Y-%m-%d}, in {(ends - now).days} days"
        return Check(name, False, detail, f"replace {path}; it is read again by itself", is_needed=False)
    return Check(name, True, f"valid until {ends:%Y-%m-%d}")
