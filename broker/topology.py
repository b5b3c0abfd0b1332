"""Make the broker's streams, buckets and consumers what `specs` says. Idempotent; role topology only."""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from broker.connection import Connection
from broker.errors import ApiError, BrokerError, BrokerTimeout, BrokerUnavailable, BrokerUnsuitable, NoResponders
from broker.outcomes import is_transient
from broker.specs import (
    ConsumerSpec,
    StreamSpec,
    batch_consumers,
    consumer_specs,
    disk_budget,
    request_cap,
    stream_specs,
)
from broker.subjects import STREAM_BATCH, STREAM_REQUESTS
from schemas.control import ModelCard

_log = logging.getLogger("inferflux.broker.topology")

_STREAM_NOT_FOUND = 10059
_CONSUMER_NOT_FOUND = 10014
_NO_ROOM = (10002, 10005, 10023, 10028, 10047)  # to keep a stream of that size free
_NOT_CLUSTERED = 10074
_BYTES = "max_bytes"
_CAP = "max_msgs_per_subject"
# Under this the cap is not lowered on a stream in use: see `_allowed_cap`.
_LOWEST_LOWERED_CAP = 64
_PASSES = 3
# A cluster that starts, or has lost a leader, does not answer for some seconds.
_PATIENCE_S = 30.0
_RETRY_S = 0.2


class Change(NamedTuple):
    """One difference: `action` is create, update or delete, `kind` stream or consumer, `fields` what an update sets.

    `stream` is whose consumer it is.
    """

    action: str
    kind: str
    name: str
    fields: tuple[str, ...] = ()
    stream: str = STREAM_REQUESTS

    def __str__(self) -> str:
        return f"{self.action} {self.kind} {self.name}" + (f" ({', '.join(self.fields)})" if self.fields else "")


class Topology:
    """The only creator of streams and request consumers.

    `replicas` is 1 alone and 3 on a cluster, `lanes` fixed per deployment. `max_file_bytes` is what a server's disk has
    for streams, where its account does not say.
    """

    def __init__(
        self, connection: Connection, *, replicas: int = 1, lanes: int = 1, max_file_bytes: int | None = None
    ) -> None:
        self._connection = connection
        self._replicas = replicas
        self._lanes = lanes
        self._max_file_bytes = max_file_bytes

    @property
    def connection(self) -> Connection:
        return self._connection

    async def diff(self, models: Sequence[ModelCard], fleet_slots: int) -> list[Change]:
        """What `apply` would do. Raises ApiError, BrokerUnavailable, BrokerUnsuitable (no room, no cluster)."""
        return [change for change, _ in await self._plan(models, fleet_slots)]

    async def apply_streams(self) -> list[Change]:
        """Only the streams and buckets, for when the models are not known yet. Raises as `diff` does."""
        return await self._apply(None, 0)

    async def apply(self, models: Sequence[ModelCard], fleet_slots: int, *, prune: bool = True) -> list[Change]:
        """Create and update what differs; with `prune` consumers of unknown models go once nothing waits in them.

        Several appliers may run at once: what another one did meanwhile is looked at again. Raises as `diff` does.
        """
        return await self._apply(models, fleet_slots, prune=prune)

    async def _apply(self, models: Sequence[ModelCard] | None, fleet_slots: int, *, prune: bool = True) -> list[Change]:
        done: list[Change] = []
        for attempt in range(_PASSES):
            plan = await self._plan(models, fleet_slots)
            if not prune:
                plan = [(change, config) for change, config in plan if change.action != "delete"]
            try:
                for change, config in plan:
                    await self._do(change, config)
                    done.append(change)
                    _log.info("%s", change)
                break
            except ApiError as error:
                # Of two that create a stream at once, one may find its room taken for a moment.
                if attempt == _PASSES - 1:
                    if (reason := _unsuitable(error)) is not None:
                        raise BrokerUnsuitable(f"{change}: {reason}") from error
                    raise
                _log.info("topology changed meanwhile: %s", error)
                await asyncio.sleep(_RETRY_S)
        return done

    async def _plan(self, models: Sequence[ModelCard] | None, fleet_slots: int) -> list[tuple[Change, dict[str, Any]]]:
        limits = (await self._api("INFO"))["limits"]
        streams = stream_specs(
            replicas=self._replicas,
            request_cap=request_cap(models, fleet_slots) if models is not None else 1,
            budget=disk_budget(limits["max_storage"], self._max_file_bytes),
        )
        plan: list[tuple[Change, dict[str, Any]]] = []
        for stream in streams:
            plan += await self._plan_stream(stream, keep_cap=models is None)
        plan += await self._plan_consumers(STREAM_BATCH, batch_consumers(replicas=self._replicas))
        if models is None:
            return plan
        consumers = consumer_specs(models, replicas=self._replicas, lanes=self._lanes)
        return plan + await self._plan_consumers(STREAM_REQUESTS, consumers)

    async def _plan_stream(self, spec: StreamSpec, *, keep_cap: bool) -> list[tuple[Change, dict[str, Any]]]:
        wanted = spec.config()
        try:
            info = await self._api(f"STREAM.INFO.{spec.name}")
        except ApiError as error:
            if error.err_code != _STREAM_NOT_FOUND:
                raise
            return [(Change("create", "stream", spec.name), wanted)]
        current: dict[str, Any] = info["config"]
        wanted[_BYTES] = _allowed_bytes(current[_BYTES], wanted[_BYTES], info["state"]["bytes"])
        if spec.name == STREAM_REQUESTS:
            lowest = current[_CAP] if keep_cap else wanted[_CAP]
            wanted[_CAP] = _allowed_cap(current[_CAP], lowest, info["state"]["messages"])
        fields = _differences(current, wanted)
        return [(Change("update", "stream", spec.name, fields), {**current, **wanted})] if fields else []

    async def _plan_consumers(self, stream: str, specs: Sequence[ConsumerSpec]) -> list[tuple[Change, dict[str, Any]]]:
        current = await self._list_consumers(stream)
        plan: list[tuple[Change, dict[str, Any]]] = []
        for spec in specs:
            info = current.pop(spec.name, None)
            wanted = spec.config()
            if info is None:
                plan.append((Change("create", "consumer", spec.name, stream=stream), wanted))
                continue
            fields = _differences(info["config"], wanted)
            if fields:
                plan.append((Change("update", "consumer", spec.name, fields, stream), {**info["config"], **wanted}))
        for name, info in current.items():
            # A consumer that goes leaves its messages unanswerable: the edge's deadline empties it first.
            if info["num_pending"] == 0 and info["num_ack_pending"] == 0:
                plan.append((Change("delete", "consumer", name, stream=stream), {}))
        return plan

    async def _list_consumers(self, stream: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        while True:
            try:
                page = await self._api(f"CONSUMER.LIST.{stream}", {"offset": len(found)})
            except ApiError as error:
                if error.err_code == _STREAM_NOT_FOUND:
                    return {}
                raise
            consumers: list[dict[str, Any]] = page.get("consumers") or []
            found.update((info["name"], info) for info in consumers)
            if not consumers or len(found) >= page["total"]:
                return found

    async def _do(self, change: Change, config: dict[str, Any]) -> None:
        if change.kind == "stream":
            await self._api(f"STREAM.{change.action.upper()}.{change.name}", config)
        elif change.action == "delete":
            try:
                await self._api(f"CONSUMER.DELETE.{change.stream}.{change.name}")
            except ApiError as error:
                if error.err_code != _CONSUMER_NOT_FOUND:
                    raise
        else:
            # Without `action` the server would silently change an existing consumer.
            await self._api(
                f"CONSUMER.CREATE.{change.stream}.{change.name}.{config['filter_subject']}",
                {"stream_name": change.stream, "config": config, "action": change.action},
            )

    async def _api(self, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One API request, repeated while nobody leads. All that we ask for may be done twice."""
        deadline = time.monotonic() + _PATIENCE_S
        is_told = False
        while True:
            try:
                return await self._connection.api(name, body)
            except (BrokerTimeout, NoResponders, ApiError) as error:
                if isinstance(error, ApiError) and not is_transient(error):
                    raise
                failure: BrokerError = error
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"the topology cannot be applied: {failure}") from failure
            if not is_told:
                _log.warning("waiting for a leader on the broker: %s", failure)
                is_told = True
            await asyncio.sleep(_RETRY_S)
            await self._connection.wait_connected(max(0.0, deadline - time.monotonic()))


def _unsuitable(error: ApiError) -> str | None:
    """Why these servers can never hold the streams as they are wanted; None for other refusals."""
    if error.err_code in _NO_ROOM:
        return f"nats.max_file_bytes is more than the servers have: {error}"
    if error.err_code == _NOT_CLUSTERED:
        return f"nats.replicas above 1 needs a cluster: {error}"
    return None


def _allowed_cap(current: int, wanted: int, messages: int) -> int:
    """The cap to set. Lowering it makes the server delete the oldest messages over it, although the stream refuses new.

    So it is lowered only on an empty stream, and not to where a burst between looking and updating could pass it.
    """
    if wanted >= current:
        return wanted
    return current if messages else min(current, max(wanted, _LOWEST_LOWERED_CAP))


def _allowed_bytes(current: int, wanted: int, used: int) -> int:
    """The size to set. Lowering it makes the server delete the oldest messages over it, accepted requests among them.

    So there has to be room in it, also for what comes between looking and updating.
    """
    return wanted if wanted >= current or used <= wanted // 2 else current


def _differences(current: dict[str, Any], wanted: dict[str, Any]) -> tuple[str, ...]:
    """Names of the wanted settings that are not so. The server omits settings that are at their zero."""
    return tuple(name for name, value in wanted.items() if (current.get(name) or None) != (value or None))
