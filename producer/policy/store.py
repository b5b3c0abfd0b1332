"""The stored policy of this edge: opened, followed, and changed by compare-and-set.

bucket `policy` --news--> _catch_up: open, check, LivePolicy.replace --> copy in a file
change: catch up, apply to the newest document, audit, seal, put after the version it was made from; else again
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import NamedTuple

import structlog

from broker.connection import Connection
from broker.errors import BrokerError, PayloadTooLarge, StreamFull, WrongSequence
from broker.policy_bucket import PolicyBucket
from producer.audit.sink import AuditSink
from producer.config import PolicyConfig
from producer.policy.copy import PolicyCopy
from producer.policy.errors import Damaged, NoSecret, PolicyError, WrongPepper
from producer.policy.live import LivePolicy
from producer.policy.sealer import Opened, Sealer
from producer.policy.secret import Secret, create_key_file, read_key_file
from schemas.audit import AuditEvent, Outcome
from schemas.errors import ErrorCode, ServingError
from schemas.policy import PolicyDocument
from schemas.requests import Identity

_log = structlog.stdlib.get_logger("inferflux.policy")

# What the configuration file decides on where the store does not.
SECTIONS = ("limits", "guardrails", "oidc", "routing")

_ATTEMPTS = 64
_EMPTY = PolicyDocument()

Change = Callable[[PolicyDocument], PolicyDocument]


class _Next(NamedTuple):
    """A version to be written. `secret` None: that of the version before."""

    document: PolicyDocument
    secret: Secret | None = None


class PolicyStore:
    """One in each edge, used from its loop. `start` decides whether the edge may serve at all.

    While the newest version cannot be opened, the last good one holds and changes are refused; `fault` says why.
    """

    def __init__(
        self,
        connection: Connection,
        live: LivePolicy,
        config: PolicyConfig,
        pepper_check: str,
        audit: AuditSink | None = None,
    ) -> None:
        self._wake = asyncio.Event()
        self._bucket = PolicyBucket(connection, self._wake.set)
        self._live = live
        self._config = config
        self._pepper_check = pepper_check
        self._audit = audit
        self._copy = PolicyCopy(config.store) if config.store is not None else None
        self._sealer = Sealer(_find_secret(config))
        self._opened: Opened | None = None
        self._envelope = b""
        self._looked_at = 0
        self._applying = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.fault: PolicyError | None = None

    @property
    def document(self) -> PolicyDocument:
        """The one that holds; empty when nothing is stored."""
        return self._opened.document if self._opened is not None else _EMPTY

    @property
    def version(self) -> int:
        """Of `document`; 0 when nothing is stored."""
        return self._opened.version if self._opened is not None else 0

    @property
    def encryption(self) -> str | None:
        """What `document` is encrypted with, in words; None when nothing is stored."""
        return self._opened.derivation.kind.title if self._opened is not None else None

    async def start(self) -> None:
        """Take what the bucket holds, or else the file. Raises PolicyError, with neither touched."""
        await self._bucket.start()
        entry = self._bucket.latest
        if entry is not None and entry.data:
            self._opened = await self._open(entry.data, f"the policy document in the broker (entry {entry.seq})")
            self._envelope, self._looked_at = entry.data, entry.seq
            self._apply()
        else:
            await self._restore_copy()
        self._task = asyncio.create_task(self._follow(), name="policy store")
        self._wake.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._bucket.close()

    async def change(
        self, actor: Identity, action: str, change: Change, *, target: str = "", request_id: str = ""
    ) -> PolicyDocument:
        """Write `change(newest document)` as the next version, and return it once it holds here.

        `change` may be called several times and must be pure; what it raises ends the attempt. Raises ServingError
        (broker_unavailable, policy_unavailable, audit_unavailable).
        """
        return await self._write(
            actor, action, lambda document: _Next(change(document)), target=target, request_id=request_id
        )

    async def reset(self, actor: Identity, section: str, *, request_id: str = "") -> PolicyDocument:
        """Let the configuration file decide on one of SECTIONS again. Raises as `change` does."""
        assert section in SECTIONS, section
        return await self.change(
            actor,
            "policy.reset",
            lambda document: document.model_copy(update={section: None}),
            target=section,
            request_id=request_id,
        )

    async def _write(
        self,
        actor: Identity,
        action: str,
        change: Callable[[PolicyDocument], _Next],
        *,
        target: str,
        request_id: str,
        drop_history: bool = False,
    ) -> PolicyDocument:
        async with self._writing:
            event: AuditEvent | None = None
            try:
                for _ in range(_ATTEMPTS):
                    await self._catch_up()
                    await self._require_writable()
                    following = change(self.document)
                    if event is None:
                        asked = AuditEvent(action, Outcome.ALLOWED, actor.owner, actor.tenant, target, request_id)
                        await self._record(asked)
                        event = asked
                    document = self._stamped(following.document, actor, action, target)
                    if await self._put(document, following.secret, drop_history=drop_history):
                        return self.document
                raise ServingError(
                    ErrorCode.POLICY_UNAVAILABLE,
                    "The policy document is changed by others all the time. Nothing was changed.",
                    retryable=True,
                    retry_after_s=1,
                )
            except Exception as error:
                if event is not None:
                    await self._record_failure(event, error)
                raise

    async def _put(self, document: PolicyDocument, secret: Secret | None, *, drop_history: bool) -> bool:
        """Whether it became the next version. Raises ServingError."""
        if secret is not None:
            sealer, derivation = Sealer(secret), None
        else:
            sealer, derivation = self._sealer, self._opened.derivation if self._opened is not None else None
        envelope = await sealer.seal(document, self.version + 1, derivation)
        follows = self._looked_at
        try:
            await self._bucket.put(envelope, follows, drop_history=drop_history)
        except WrongSequence:
            await self._bucket.wait_for(follows + 1)
            # Its answer may have been lost, and it was sent again.
            if not self._bucket.has_seen(envelope):
                return False
        except (StreamFull, PayloadTooLarge):
            raise ServingError(
                ErrorCode.POLICY_UNAVAILABLE, f"The broker has no room for a policy document of {len(envelope)} bytes."
            ) from None
        except BrokerError as error:
            raise ServingError(
                ErrorCode.BROKER_UNAVAILABLE,
                f"The policy was not changed, as far as is known: {error}",
                retryable=True,
                retry_after_s=2,
            ) from None
        if secret is not None:
            self._sealer = sealer
        await self._catch_up()
        return True

    def _stamped(self, document: PolicyDocument, actor: Identity, action: str, target: str) -> PolicyDocument:
        return document.model_copy(
            update={
                "pepper_check": self._pepper_check,
                "changed_at": int(time.time()),
                "changed_by": actor.owner,
                "action": action,
                "target": target,
            }
        )

    async def _require_writable(self) -> None:
        if self.fault is not None:
            raise ServingError(ErrorCode.POLICY_UNAVAILABLE, f"The policy cannot be changed at this edge: {self.fault}")
        if self._sealer.secret is not None:
            return
        if self._config.key_file is None:
            raise ServingError(
                ErrorCode.POLICY_UNAVAILABLE,
                "The policy cannot be changed without a passphrase to encrypt it with: set INFERFLUX_POLICY_PASSPHRASE "
                "to the same value for every edge.",
            )
        try:
            self._sealer = Sealer(await asyncio.to_thread(create_key_file, self._config.key_file))
        except NoSecret as error:
            raise ServingError(ErrorCode.POLICY_UNAVAILABLE, str(error)) from None
        _log.warning(
            "the policy document is encrypted with a random key of this machine, and lost without it",
            key_file=str(self._config.key_file),
        )

    async def _record(self, event: AuditEvent) -> None:
        if self._audit is not None:
            await self._audit.require(event)

    async def _record_failure(self, event: AuditEvent, error: Exception) -> None:
        reason = str(error.code) if isinstance(error, ServingError) else type(error).__name__
        failed = AuditEvent(
            event.action, Outcome.FAILED, event.actor, event.tenant, event.target, event.request_id, reason
        )
        with contextlib.suppress(ServingError):
            await self._record(failed)

    async def _follow(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._catch_up()
            await self._keep_copy()

    async def _catch_up(self) -> None:
        """Make the newest version hold, unless it cannot be opened."""
        async with self._applying:
            entry = self._bucket.latest
            if entry is None or not entry.data:
                await self._put_back()
                return
            if entry.seq == self._looked_at:
                return
            place = f"the policy document in the broker (entry {entry.seq})"
            try:
                opened = await self._open(entry.data, place)
                if opened.version < self.version or (opened.version == self.version and entry.data != self._envelope):
                    raise Damaged(f"{place}: version {opened.version} came after version {self.version}")
            except PolicyError as error:
                _log.error("the newest policy is not used, the last good one holds", reason=str(error))
                self.fault, self._looked_at = error, entry.seq
                return
            if self.fault is not None:
                _log.info("the policy can be read again", version=opened.version)
            self.fault, self._opened = None, opened
            self._envelope, self._looked_at = entry.data, entry.seq
            self._apply()

    async def _open(self, envelope: bytes, place: str) -> Opened:
        """Raises PolicyError that begins with `place`."""
        try:
            if self._sealer.secret is None:
                self._sealer = Sealer(await asyncio.to_thread(_find_secret, self._config))
            opened = await self._sealer.open(envelope)
        except PolicyError as error:
            raise type(error)(f"{place}: {error}") from None
        self._check_pepper(opened.document, place)
        return opened

    def _check_pepper(self, document: PolicyDocument, place: str) -> None:
        if document.decides_on_keys and document.pepper_check not in (None, self._pepper_check):
            raise WrongPepper(
                f"{place} holds API keys made with another pepper: set INFERFLUX_KEY_PEPPER to the same value for "
                "every edge, or give all the same pepper file"
            )

    def _apply(self) -> None:
        assert self._opened is not None
        self._live.replace(self._opened.document, self._opened.version)

    async def _restore_copy(self) -> None:
        """The broker holds no document: the one of the file is put there. Raises PolicyError, BrokerError."""
        if self._copy is None:
            return
        place = f"the policy document in {self._copy.path}"
        try:
            envelope = await asyncio.to_thread(self._copy.read)
        except OSError as error:
            raise Damaged(f"{place}: {error.strerror}") from None
        if envelope is None:
            return
        opened = await self._open(envelope, place)
        with contextlib.suppress(WrongSequence):  # another edge was faster, with the same
            await self._bucket.put(envelope, self._bucket.seq)
            _log.warning("the broker held no policy: it was taken from the file", path=str(self._copy.path))
        entry = self._bucket.latest
        if entry is not None and entry.data:
            self._opened = opened if entry.data == envelope else await self._open(entry.data, place)
            self._envelope, self._looked_at = entry.data, entry.seq
            self._apply()

    async def _put_back(self) -> None:
        """The document is gone from the broker, with its data or by somebody's hand: what holds here is put there."""
        self._looked_at = self._bucket.seq
        if self._opened is None:
            return
        try:
            seq = await self._bucket.put(self._envelope, self._bucket.seq)
        except WrongSequence:
            return  # another edge was faster; its news come
        except BrokerError as error:
            _log.error("the policy is gone from the broker and could not be put back", reason=str(error))
            return
        self._looked_at = seq
        _log.warning("the policy was gone from the broker and has been put back", version=self.version)

    async def _keep_copy(self) -> None:
        if self._copy is None or self._opened is None:
            return
        try:
            await asyncio.to_thread(self._copy.write, self._envelope, self.version)
        except OSError as error:
            _log.error("the copy of the policy is out of date", path=str(self._copy.path), reason=error.strerror)


def _find_secret(config: PolicyConfig) -> Secret | None:
    """Raises NoSecret when the key file is of no use."""
    if config.passphrase is not None:
        return Secret.of_passphrase(config.passphrase)
    return read_key_file(config.key_file) if config.key_file is not None else None
