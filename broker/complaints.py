"""What the client library reports meanwhile: refused logins and subjects, dropped messages, failing callbacks."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Iterator

import nats.errors

from broker.address import bare_url
from broker.broker_config import BrokerConfig
from broker.client import NoTls
from broker.errors import BrokerError, BrokerUnsuitable, Refused
from broker.inbox import Inbox

_log = logging.getLogger("inferflux.broker.connection")

_SHUT_OUT_S = 10.0
_NOT_AUTHORIZED = "authorization violation"
_PERMISSIONS = "permissions violation"


class Complaints:
    """Of one connection. `refusal` is set when connecting has no prospect; `last` is the text of the newest one.

    `on_shut_out` is called when a login that once held has been refused for so long that it will stay so.
    """

    def __init__(
        self, config: BrokerConfig, inboxes: Callable[[], Iterator[Inbox]], on_shut_out: Callable[[], None]
    ) -> None:
        self._config = config
        self._inboxes = inboxes
        self._on_shut_out = on_shut_out
        self._shut_out_since: float | None = None
        self._overrun_logged_at = -1.0
        self.refusal: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self.last = "no answer"
        self.num_refused = 0
        self.num_overrun = 0

    def reconnected(self) -> None:
        self._shut_out_since = None

    def take(self, error: Exception, *, is_away: bool) -> None:
        """`is_away`: there is no connection, and one is wanted."""
        text = str(error) or type(error).__name__
        self.last = text
        lowered = text.lower()
        if _NOT_AUTHORIZED in lowered:
            self._refuse(Refused(f"{bare_url(self._config.url)} refuses the login of role {self._config.role}"))
            if is_away:
                self._note_shut_out()
        elif _PERMISSIONS in lowered:
            self._note_refused(text)
        elif isinstance(error, ssl.SSLCertVerificationError | NoTls):
            self._refuse(BrokerUnsuitable(f"{bare_url(self._config.url)}: {_tls_reason(error)}"))
            _log.debug("%s", text)
        elif isinstance(error, nats.errors.SlowConsumerError):
            self._note_overrun(error.subject)
        elif isinstance(error, (OSError, TimeoutError, nats.errors.Error)):
            _log.debug("%s", text)  # a loss of the connection is said once, by who loses it
        else:
            _log.error("a callback failed", exc_info=error)

    def _refuse(self, error: BrokerError) -> None:
        if not self.refusal.done():
            self.refusal.set_result(error)

    def _note_refused(self, text: str) -> None:
        self.num_refused += 1
        _log.error("role %s: %s", self._config.role, text)
        if '"' in text:
            for inbox in self._inboxes():
                inbox.refused(text.split('"')[1], f"role {self._config.role} may not: {text}")

    def _note_shut_out(self) -> None:
        """A login may be refused for moments, while it is exchanged. One that stays so is refused for good."""
        now = time.monotonic()
        self._shut_out_since = self._shut_out_since or now
        if any(True for _ in self._inboxes()) and now - self._shut_out_since > _SHUT_OUT_S:
            _log.critical("%s refuses the login of role %s", bare_url(self._config.url), self._config.role)
            self._on_shut_out()

    def _note_overrun(self, subject: str) -> None:
        """A message was dropped at a subscription's limit; they come in thousands, so a line a second says enough."""
        self.num_overrun += 1
        now = time.monotonic()
        if now - self._overrun_logged_at >= 1.0:
            self._overrun_logged_at = now
            _log.warning("messages on %s come faster than they are handled: %d dropped", subject, self.num_overrun)


def _tls_reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}"
    return str(error)
