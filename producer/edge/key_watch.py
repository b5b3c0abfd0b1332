"""Ends the calls of API keys that hold no longer: revoked, expired, or replaced and past their grace."""

import asyncio
import time

from producer.auth.api_keys import ApiKeys
from producer.edge.calls import Call, LiveCalls
from producer.edge.lifecycle import Lifecycle

# A clock that was set is noticed no later than this.
_LONGEST_SLEEP_S = 60.0


class KeyWatch:
    """Looks at the calls of this edge whenever the rules change, and when a key expires."""

    def __init__(self, keys: ApiKeys, calls: LiveCalls, lifecycle: Lifecycle) -> None:
        self._keys = keys
        self._calls = calls
        self._lifecycle = lifecycle
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def follow(self, call: Call, key_digest: bytes | None) -> None:
        """From now on the call lives no longer than the key it was made with; None when it was made with none."""
        if call.key_digest is None:
            call.key_digest = key_digest
        self._check(call)
        self._set_timer()

    def look(self) -> None:
        """End the calls whose keys hold no longer."""
        self.close()
        for call in self._calls:
            self._check(call)
        self._set_timer()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self, call: Call) -> None:
        if call.key_digest is not None and not self._keys.holds(call.key_digest):
            self._lifecycle.revoke(call)

    def _set_timer(self) -> None:
        expiry = self._keys.next_expiry()
        if expiry is None or not len(self._calls):
            return
        # A moment later, so that it has expired by then whatever the rounding.
        delay_s = min(max(expiry - time.time(), 0.0) + 0.01, _LONGEST_SLEEP_S)
        loop = asyncio.get_running_loop()
        if self._timer is None or loop.time() + delay_s < self._due:
            self.close()
            self._due = loop.time() + delay_s
            self._timer = loop.call_later(delay_s, self.look)
