"""The stored policy as this edge follows it: opened, checked, made to hold, kept in a file.

bucket `policy` --news--> catch_up: open, check, LivePolicy.replace --> copy in a file
"""

import asyncio
import contextlib
import time
from typing import NamedTuple

import structlog

from broker.connection import Connection
from broker.errors import BrokerError, WrongSequence
from broker.policy_bucket import PolicyBucket, PolicyEntry
from producer.config import PolicyConfig
from producer.policy.copy import PolicyCopy
from producer.policy.envelope import Derivation, read_header
from producer.policy.errors import Damaged, NoSecret, PolicyError, WrongPepper, WrongSecret
from producer.policy.live import LivePolicy
from producer.policy.sealer import Opened, Sealer
from producer.policy.secret import create_key_file, find_secret
from schemas.policy import PolicyDocument

_log = structlog.stdlib.get_logger("inferflux.policy")

# Where a secret that does not fit came from is looked at again so often.
LOOK_AGAIN_S = 5.0


class Held(NamedTuple):
    """The version that holds here, and its sequence in the bucket: what the next one has to follow."""

    document: PolicyDocument
    version: int
    derivation: Derivation | None
    envelope: bytes
    seq: int


class PolicyFollower:
    """One in each edge, used from its loop. `start` decides whether the edge may serve at all.

    While the newest version cannot be opened, the last good one holds; `fault` says why, and `fault_since` is the
    monotonic time of the first that could not. A secret that was put in the place of the old one is then taken.
    """

    def __init__(self, connection: Connection, live: LivePolicy, config: PolicyConfig, pepper_check: str) -> None:
        self._wake = asyncio.Event()
        self._live = live
        self._config = config
        self._copy = PolicyCopy(config.store) if config.store is not None else None
        self._looked_at = 0
        self._applying = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.pepper_check = pepper_check
        self.bucket = PolicyBucket(connection, self._wake.set)
        self.sealer = Sealer(find_secret(config))
        self.held = Held(PolicyDocument(), 0, None, b"", 0)
        self.fault: PolicyError | None = None
        self.fault_since: float | None = None

    async def start(self) -> None:
        """Take what the bucket holds, or the file when that is ahead. Raises PolicyError, with neither touched."""
        await self.bucket.start()
        await self._take_latest()
        if await self._put_copy():
            await self._take_latest()
        self._task = asyncio.create_task(self._follow(), name="policy")
        self._wake.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self.bucket.close()

    async def catch_up(self) -> None:
        """Make the newest version hold, unless it cannot be opened."""
        async with self._applying:
            entry = self.bucket.latest
            if entry is None or not entry.data:  # what was deleted by hand is an entry without bytes
                await self._put_back()
                return
            if entry.seq == self._looked_at and not self._needs_other_secret:
                return
            try:
                opened = await self._open(entry.data, _place(entry))
                self._require_newer(opened, entry)
            except PolicyError as error:
                self._note_fault(error, entry)
                return
            if self.fault is not None:
                _log.info("the policy can be read again", version=opened.version)
            await self._hold(opened, entry)

    async def put(self, envelope: bytes, follows: int, sealer: Sealer, *, drop_history: bool) -> bool:
        """Whether it became the entry after `follows`; then `sealer` opens from now on. Raises as the bucket does."""
        async with self._applying:  # nobody looks at the new entry with the old secret
            try:
                await self.bucket.put(envelope, follows, drop_history=drop_history)
            except WrongSequence:
                await self.bucket.wait_for(follows + 1)
                # Its answer may have been lost, and it was sent again.
                if not self.bucket.has_seen(envelope):
                    return False
            self.sealer = sealer
            return True

    async def make_secret(self) -> None:
        """For the first document of a machine without a passphrase: a random secret in a file. Raises NoSecret."""
        if self._config.key_file is None:
            raise NoSecret(
                "there is no passphrase to encrypt it with: set INFERFLUX_POLICY_PASSPHRASE to the same value for "
                "every edge"
            )
        self.sealer = Sealer(await asyncio.to_thread(create_key_file, self._config.key_file))
        _log.warning(
            "the policy document is encrypted with a random key of this machine, and lost without it",
            key_file=str(self._config.key_file),
        )

    def check_pepper(self, document: PolicyDocument, place: str) -> None:
        """Raises WrongPepper when it holds keys that this edge could not recognise."""
        if document.decides_on_keys and document.pepper_check not in (None, self.pepper_check):
            raise WrongPepper(
                f"{place} holds API keys made with another pepper: set INFERFLUX_KEY_PEPPER to the same value for "
                "every edge, or give all the same pepper file"
            )

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S if self._needs_other_secret else None):
                    await self._wake.wait()
            self._wake.clear()
            await self.catch_up()
            await self._keep_copy()

    @property
    def _needs_other_secret(self) -> bool:
        return isinstance(self.fault, WrongSecret | NoSecret)

    def _note_fault(self, error: PolicyError, entry: PolicyEntry) -> None:
        if entry.seq != self._looked_at:
            _log.error("the newest policy is not used, the last good one holds", reason=str(error))
        self.fault, self._looked_at = error, entry.seq
        if self.fault_since is None:
            self.fault_since = time.monotonic()

    def _forget_fault(self) -> None:
        self.fault = self.fault_since = None

    async def _open(self, envelope: bytes, place: str) -> Opened:
        """Raises PolicyError that begins with `place`."""
        try:
            opened = await self._unseal(envelope)
        except PolicyError as error:
            raise type(error)(f"{place}: {error}") from None
        self.check_pepper(opened.document, place)
        return opened

    async def _unseal(self, envelope: bytes) -> Opened:
        """By the secret at hand, or by one that has been put in its place since. Raises PolicyError."""
        try:
            return await self.sealer.open(envelope)
        except (WrongSecret, NoSecret):
            try:
                secret = await asyncio.to_thread(find_secret, self._config)
            except NoSecret:
                secret = None
            if secret is None or secret == self.sealer.secret:
                raise
        sealer = Sealer(secret)
        opened = await sealer.open(envelope)
        self.sealer = sealer
        return opened

    def _require_newer(self, opened: Opened, entry: PolicyEntry) -> None:
        """An old version that somebody puts back is no news. Raises Damaged."""
        version = self.held.version
        if opened.version < version or (opened.version == version and entry.data != self.held.envelope):
            raise Damaged(f"{_place(entry)}: version {opened.version} came after version {version}")

    async def _hold(self, opened: Opened, entry: PolicyEntry) -> None:
        await self._live.prepare(opened.document, opened.version)
        self._forget_fault()
        self._looked_at = entry.seq
        self.held = Held(opened.document, opened.version, opened.derivation, entry.data, entry.seq)
        self._live.replace(opened.document, opened.version)

    async def _take_latest(self) -> None:
        """Hold what the bucket has. Raises PolicyError."""
        entry = self.bucket.latest
        if entry is not None and entry.data:
            await self._hold(await self._open(entry.data, _place(entry)), entry)

    async def _put_back(self) -> None:
        """The document is gone from the broker, with its data or by somebody's hand: what holds here is put there."""
        self._looked_at = self.bucket.seq
        self.held = self.held._replace(seq=self.bucket.seq)
        if not self.held.version:
            return
        try:
            seq = await self.bucket.put(self.held.envelope, self.bucket.seq)
        except WrongSequence:
            return  # another edge was faster; its news come
        except BrokerError as error:
            _log.error("the policy is gone from the broker and could not be put back", reason=str(error))
            return
        self._looked_at = seq
        self.held = self.held._replace(seq=seq)
        self._forget_fault()
        _log.warning("the policy was gone from the broker and has been put back", version=self.held.version)

    async def _put_copy(self) -> bool:
        """Put the document of the file into the broker, if that has none, or one that came before it; whether it did.

        The broker may have lost it with its data, or lost its last writes to a power cut. Raises PolicyError, when it
        is needed and cannot be opened, and BrokerError.
        """
        if self._copy is None:
            return False
        place = f"the policy document in {self._copy.path}"
        try:
            envelope = await asyncio.to_thread(self._copy.read)
            if envelope is None or not self._is_ahead(envelope):
                return False
        except OSError as error:
            raise Damaged(f"{place}: {error.strerror}") from None
        await self._open(envelope, place)
        with contextlib.suppress(WrongSequence):  # another edge was faster
            await self.bucket.put(envelope, self.bucket.seq)
            _log.warning("the broker held no policy, or an older one: it was taken from the file", file=place)
        return True

    def _is_ahead(self, envelope: bytes) -> bool:
        """Whether it is newer than what holds, and of the same installation: a salt lasts until the secret changes."""
        held = self.held
        if not held.version:
            return True
        try:
            header = read_header(envelope)
        except Damaged:
            return False  # it will be written anew
        if header.version <= held.version:
            return False
        if header.derivation == held.derivation:
            return True
        _log.error(
            "the copy of the policy is newer than the one in the broker, which holds, and not of its making: "
            "import it, or remove it",
            version=header.version,
            in_broker=held.version,
        )
        return False

    async def _keep_copy(self) -> None:
        held = self.held
        if self._copy is None or not held.version:
            return
        try:
            await asyncio.to_thread(self._copy.write, held.envelope, held.version)
        except OSError as error:
            _log.error("the copy of the policy is out of date", path=str(self._copy.path), reason=error.strerror)


def _place(entry: PolicyEntry) -> str:
    return f"the policy document in the broker (entry {entry.seq})"
