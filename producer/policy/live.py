"""The rules of this moment, and word of every change of them."""

from collections.abc import Awaitable, Callable

from producer.config import EdgeConfig
from producer.policy.effective import EffectivePolicy, lay_over
from schemas.policy import PolicyDocument


class LivePolicy:
    """What holds now in this edge. Whoever needs a prepared form of it makes that anew on each change.

    `config` is what the configuration says now of keys, limits, guardrails and tokens; the rest of it is as it was at
    the start.
    """

    def __init__(self, config: EdgeConfig) -> None:
        self.config = config
        self._document: PolicyDocument | None = None
        self._preparing: list[Callable[[EffectivePolicy], Awaitable[None]]] = []
        self._callbacks: list[Callable[[EffectivePolicy], None]] = []
        self.current = lay_over(config, None)

    def on_change(self, callback: Callable[[EffectivePolicy], None]) -> None:
        """Call back after every change, and once right now. On the loop; must be quick."""
        self._callbacks.append(callback)
        callback(self.current)

    def on_prepare(self, prepare: Callable[[EffectivePolicy], Awaitable[None]]) -> None:
        """Await this before a change that may take long to prepare for."""
        self._preparing.append(prepare)

    async def prepare(self, document: PolicyDocument, revision: int) -> None:
        """Get ready for a document that is about to replace the current one."""
        policy = lay_over(self.config, document, revision)
        for prepare in self._preparing:
            await prepare(policy)

    def replace(self, document: PolicyDocument | None, revision: int) -> None:
        """The stored document is now this one. An older revision than the current is no news."""
        if revision < self.current.revision:
            return
        self._document = document
        self._hold(revision)

    def configure(self, config: EdgeConfig) -> None:
        """The configuration now says this. What the stored document decides stays so."""
        self.config = config
        self._hold(self.current.revision)

    def _hold(self, revision: int) -> None:
        self.current = lay_over(self.config, self._document, revision)
        for callback in self._callbacks:
            callback(self.current)
