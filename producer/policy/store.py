"""The stored policy of this edge, and how it is changed.

change: catch up, apply to the newest document, audit, seal, put after the version it was made from; else again
"""

import asyncio
import contextlib
import time
from dataclasses import replace
from typing import NamedTuple

from broker.connection import Connection
from broker.errors import BrokerError, PayloadTooLarge, StreamFull
from broker.policy_bucket import HISTORY, PolicyEntry
from producer.audit.sink import AuditSink
from producer.config import PolicyConfig
from producer.policy.change import Change, Guard
from producer.policy.errors import NoSecret, PolicyError
from producer.policy.follower import Held, PolicyFollower
from producer.policy.key_changes import keep_revoked
from producer.policy.live import LivePolicy
from producer.policy.sealer import Opened, Sealer
from producer.policy.secret import Secret
from schemas.audit import AuditEvent, Outcome
from schemas.errors import ErrorCode, ServingError
from schemas.policy import PolicyDocument
from schemas.requests import Identity

# What the configuration file decides on where the store does not.
SECTIONS = ("limits", "guardrails", "oidc", "routing")

_ATTEMPTS = 64
_STALE_BACK_S = 5.0


class Version(NamedTuple):
    """One of the bucket. `opened` is None, and `fault` says why, when the secret of this edge does not open it."""

    entry: int
    stored_at: float
    opened: Opened | None
    fault: str | None


class _Writing(NamedTuple):
    """A change under way. `secret` None: that of the version before."""

    actor: Identity
    event: AuditEvent
    change: Change
    secret: Secret | None = None


class PolicyStore:
    """One in each edge, used from its loop. `start` decides whether the edge may serve at all.

    While the newest version cannot be opened, the last good one holds and changes are refused; `fault` says why. When
    that lasts, it is `is_stale`.
    """

    def __init__(
        self,
        connection: Connection,
        live: LivePolicy,
        config: PolicyConfig,
        pepper_check: str,
        audit: AuditSink | None = None,
    ) -> None:
        self._follower = PolicyFollower(connection, live, config, pepper_check)
        self._audit = audit
        self._max_stale_s = config.max_stale_s
        self._writing = asyncio.Lock()

    @property
    def document(self) -> PolicyDocument:
        """The one that holds; empty when nothing is stored."""
        return self._follower.held.document

    @property
    def version(self) -> int:
        """Of `document`; 0 when nothing is stored."""
        return self._follower.held.version

    @property
    def encryption(self) -> str | None:
        """What `document` is encrypted with, in words; None when nothing is stored."""
        derivation = self._follower.held.derivation
        return derivation.kind.title if derivation is not None else None

    @property
    def fault(self) -> PolicyError | None:
        """Why the newest version is not the one that holds; None when it is."""
        return self._follower.fault

    @property
    def is_stale(self) -> bool:
        """Whether the newest version has not been opened for so long that what holds here is nothing to go by."""
        since = self._follower.fault_since
        return since is not None and time.monotonic() - since > self._max_stale_s

    def require_current(self) -> None:
        """Raise ServingError (policy_unavailable) when stale: a key may have been revoked since."""
        if self.is_stale:
            raise ServingError(
                ErrorCode.POLICY_UNAVAILABLE,
                f"This edge cannot open the newest policy, and refuses what an older one allowed: {self.fault}.",
                retryable=True,
                retry_after_s=_STALE_BACK_S,
            )

    async def start(self) -> None:
        """Take what the broker holds, or else the file. Raises PolicyError, with neither touched."""
        await self._follower.start()

    async def close(self) -> None:
        await self._follower.close()

    async def change(
        self, actor: Identity, action: str, change: Change, *, target: str = "", request_id: str = ""
    ) -> PolicyDocument:
        """Write `change(newest document)` as the next version, and return it once it holds here.

        `change` may be called several times and must be pure; what it raises ends the attempt. Raises ServingError
        (broker_unavailable, policy_unavailable, audit_unavailable).
        """
        return await self._write(_Writing(actor, _event(actor, action, target, request_id), change))

    async def reset(
        self, actor: Identity, section: str, guard: Guard = lambda change: change, *, request_id: str = ""
    ) -> PolicyDocument:
        """Let the configuration file decide on one of SECTIONS again. Raises as `change` does."""
        assert section in SECTIONS, section
        return await self.change(
            actor,
            "policy.reset",
            guard(lambda document: document.model_copy(update={section: None})),
            target=section,
            request_id=request_id,
        )

    async def versions(self) -> list[Version]:
        """All that are kept, oldest first. Raises ServingError (broker_unavailable)."""
        return [await self._read_version(entry) for entry in await self.history()]

    async def rollback(self, actor: Identity, version: int, guard: Guard, *, request_id: str = "") -> PolicyDocument:
        """Make the document of an earlier version the next one; secrets that lost their force since do not regain it.

        Raises ServingError (version_not_found, or as `change` does).
        """
        earlier = await self._find_version(version)
        change = guard(lambda document: keep_revoked(earlier, document))
        return await self.change(actor, "policy.rollback", change, target=str(version), request_id=request_id)

    async def exported(self, secret: Secret | None = None) -> bytes:
        """The document sealed with `secret`, None for its own. Raises ServingError (version_not_found)."""
        held = self._follower.held
        if not held.version:
            raise ServingError(ErrorCode.VERSION_NOT_FOUND, "Nothing is stored yet.")
        return held.envelope if secret is None else await Sealer(secret).seal(held.document, held.version, None)

    async def import_(
        self, actor: Identity, envelope: bytes, secret: Secret | None, guard: Guard, *, request_id: str = ""
    ) -> PolicyDocument:
        """Make an exported document the next version; `secret` opens it, None for the store's own.

        Secrets that lost their force here do not regain it. Raises PolicyError, or ServingError as `change` does.
        """
        sealer = self._follower.sealer if secret is None else Sealer(secret)
        brought = (await sealer.open(envelope)).document
        self._follower.check_pepper(brought, "it")
        change = guard(lambda document: keep_revoked(brought, document))
        return await self.change(actor, "policy.import", change, request_id=request_id)

    async def rotate_passphrase(self, actor: Identity, passphrase: str, *, request_id: str = "") -> PolicyDocument:
        """Encrypt with another passphrase from now on. Versions under the old secret are dropped from the broker.

        Edges that have not got it yet go on with the last version that they could open. Raises as `change` does.
        """
        event = _event(actor, "policy.rotate_passphrase", "", request_id)
        secret = Secret.of_passphrase(passphrase)
        return await self._write(_Writing(actor, event, lambda document: document, secret))

    async def history(self) -> list[PolicyEntry]:
        """The entries of `versions`, sealed."""
        try:
            return await self._follower.bucket.history()
        except BrokerError as error:
            raise ServingError(
                ErrorCode.BROKER_UNAVAILABLE, f"Earlier versions cannot be read: {error}", retryable=True
            ) from None

    async def _read_version(self, entry: PolicyEntry) -> Version:
        try:
            opened = await self._follower.sealer.open(entry.data)
        except PolicyError as error:
            return Version(entry.seq, entry.stored_at, None, str(error))
        return Version(entry.seq, entry.stored_at, opened, None)

    async def _find_version(self, version: int) -> PolicyDocument:
        """The newest one of that number that can be opened. Raises ServingError (version_not_found)."""
        for found in reversed(await self.versions()):
            if found.opened is not None and found.opened.version == version:
                return found.opened.document
        raise ServingError(
            ErrorCode.VERSION_NOT_FOUND,
            f"There is no version {version} that can be read; the last {HISTORY} are kept, from the last change of "
            "the passphrase on.",
            param="version",
        )

    async def _write(self, writing: _Writing) -> PolicyDocument:
        async with self._writing:
            is_recorded = False
            try:
                for _ in range(_ATTEMPTS):
                    held = await self._newest()
                    # What is written follows this very version, whatever comes in meanwhile.
                    document = self._stamped(writing.change(held.document), writing)
                    if not is_recorded:
                        await self._record(writing.event)
                        is_recorded = True
                    if await self._put(document, held, writing.secret):
                        return self.document
                raise _unavailable("it is changed by others all the time", retry_after_s=1)
            except Exception as error:
                if is_recorded:
                    await self._record_failure(writing.event, error)
                raise

    async def _newest(self) -> Held:
        """What a change starts from. Raises ServingError (policy_unavailable)."""
        await self._follower.catch_up()
        if self.fault is not None:
            raise _unavailable(str(self.fault))
        if self._follower.sealer.secret is None:
            try:
                await self._follower.make_secret()
            except NoSecret as error:
                raise _unavailable(str(error)) from None
        return self._follower.held

    async def _put(self, document: PolicyDocument, held: Held, secret: Secret | None) -> bool:
        """Whether it became the version after `held`; with a new secret the only one. Raises ServingError."""
        follower = self._follower
        sealer = follower.sealer if secret is None else Sealer(secret)
        envelope = await sealer.seal(document, held.version + 1, held.derivation if secret is None else None)
        try:
            is_written = await follower.put(envelope, held.seq, sealer, drop_history=secret is not None)
        except (StreamFull, PayloadTooLarge):
            raise _unavailable(f"the broker has no room for a document of {len(envelope)} bytes") from None
        except BrokerError as error:
            raise ServingError(
                ErrorCode.BROKER_UNAVAILABLE,
                f"The policy was not changed, as far as is known: {error}",
                retryable=True,
                retry_after_s=2,
            ) from None
        await follower.catch_up()
        return is_written

    def _stamped(self, document: PolicyDocument, writing: _Writing) -> PolicyDocument:
        return document.model_copy(
            update={
                "pepper_check": self._follower.pepper_check,
                "changed_at": int(time.time()),
                "changed_by": writing.actor.owner,
                "action": writing.event.action,
                "target": writing.event.target,
            }
        )

    async def _record(self, event: AuditEvent) -> None:
        if self._audit is not None:
            await self._audit.require(event)

    async def _record_failure(self, event: AuditEvent, error: Exception) -> None:
        reason = str(error.code) if isinstance(error, ServingError) else type(error).__name__
        with contextlib.suppress(ServingError):
            await self._record(replace(event, outcome=Outcome.FAILED, reason=reason))


def _event(actor: Identity, action: str, target: str, request_id: str) -> AuditEvent:
    return AuditEvent(action, Outcome.ALLOWED, actor.owner, actor.tenant, target, request_id)


def _unavailable(reason: str, retry_after_s: float | None = None) -> ServingError:
    return ServingError(
        ErrorCode.POLICY_UNAVAILABLE,
        f"The policy cannot be changed at this edge: {reason}.",
        retryable=retry_after_s is not None,
        retry_after_s=retry_after_s,
    )
