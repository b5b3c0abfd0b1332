"""Make the broker's streams, buckets and consumers what `specs` says. Idempotent; role topology only."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from broker.connection import Connection
from broker.errors import ApiError
from broker.specs import ConsumerSpec, StreamSpec, consumer_specs, disk_budget, request_cap, stream_specs
from broker.subjects import STREAM_REQUESTS
from schemas.control import ModelCard

_log = logging.getLogger("inferflux.broker.topology")

_STREAM_NOT_FOUND = 10059
_CONSUMER_NOT_FOUND = 10014
_CAP = "max_msgs_per_subject"
# Under this the cap is not lowered on a stream in use: see `_allowed_cap`.
_LOWEST_LOWERED_CAP = 64
_PASSES = 3


class Change(NamedTuple):
    """One difference: `action` is create, update or delete, `kind` stream or consumer, `fields` what an update sets."""

    action: str
    kind: str
    name: str
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.action} {self.kind} {self.name}" + (f" ({', '.join(self.fields)})" if self.fields else "")


class Topology:
    """The only creator of streams and request consumers.

    `replicas` is 1 alone and 3 on a cluster, `lanes` fixed per deployment.
    """

    def __init__(self, connection: Connection, *, replicas: int = 1, lanes: int = 1) -> None:
        self._connection = connection
        self._replicas = replicas
        self._lanes = lanes

    @property
    def connection(self) -> Connection:
        return self._connection

    async def diff(self, models: Sequence[ModelCard], fleet_slots: int) -> list[Change]:
        """What `apply` would do. Raises ApiError, BrokerTimeout, NoResponders."""
        return [change for change, _ in await self._plan(models, fleet_slots)]

    async def apply_streams(self) -> list[Change]:
        """Only the streams and buckets, for when the models are not known yet. Raises as `diff` does."""
        return await self._apply(None, 0)

    async def apply(self, models: Sequence[ModelCard], fleet_slots: int) -> list[Change]:
        """Create and update what differs; consumers of unknown models go once nothing waits in them.

        Several appliers may run at once: what another one did meanwhile is looked at again. Raises as `diff` does.
        """
        return await self._apply(models, fleet_slots)

    async def _apply(self, models: Sequence[ModelCard] | None, fleet_slots: int) -> list[Change]:
        done: list[Change] = []
        for attempt in range(_PASSES):
            plan = await self._plan(models, fleet_slots)
            try:
                for change, config in plan:
                    await self._do(change, config)
                    done.append(change)
                    _log.info("%s", change)
                break
            except ApiError as error:
                if attempt == _PASSES - 1:
                    raise
                _log.info("topology changed meanwhile: %s", error)
        return done

    async def _plan(self, models: Sequence[ModelCard] | None, fleet_slots: int) -> list[tuple[Change, dict[str, Any]]]:
        limits = (await self._connection.api("INFO"))["limits"]
        streams = stream_specs(
            replicas=self._replicas,
            request_cap=request_cap(models, fleet_slots) if models is not None else 1,
            budget=disk_budget(limits["max_storage"]),
        )
        plan: list[tuple[Change, dict[str, Any]]] = []
        for stream in streams:
            plan += await self._plan_stream(stream, keep_cap=models is None)
        if models is None:
            return plan
        consumers = consumer_specs(models, replicas=self._replicas, lanes=self._lanes)
        return plan + await self._plan_consumers(consumers)

    async def _plan_stream(self, spec: StreamSpec, *, keep_cap: bool) -> list[tuple[Change, dict[str, Any]]]:
        wanted = spec.config()
        try:
            info = await self._connection.api(f"STREAM.INFO.{spec.name}")
        except ApiError as error:
            if error.err_code != _STREAM_NOT_FOUND:
                raise
            return [(Change("create", "stream", spec.name), wanted)]
        current: dict[str, Any] = info["config"]
        if spec.name == STREAM_REQUESTS:
            lowest = current[_CAP] if keep_cap else wanted[_CAP]
            wanted[_CAP] = _allowed_cap(current[_CAP], lowest, info["state"]["messages"])
        fields = _differences(current, wanted)
        return [(Change("update", "stream", spec.name, fields), {**current, **wanted})] if fields else []

    async def _plan_consumers(self, specs: Sequence[ConsumerSpec]) -> list[tuple[Change, dict[str, Any]]]:
        current = await self._list_consumers()
        plan: list[tuple[Change, dict[str, Any]]] = []
        for spec in specs:
            info = current.pop(spec.name, None)
            wanted = spec.config()
            if info is None:
                plan.append((Change("create", "consumer", spec.name), wanted))
                continue
            fields = _differences(info["config"], wanted)
            if fields:
                plan.append((Change("update", "consumer", spec.name, fields), {**info["config"], **wanted}))
        for name, info in current.items():
            # A consumer that goes leaves its messages unanswerable: the edge's deadline empties it first.
            if info["num_pending"] == 0 and info["num_ack_pending"] == 0:
                plan.append((Change("delete", "consumer", name), {}))
        return plan

    async def _list_consumers(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        while True:
            try:
                page = await self._connection.api(f"CONSUMER.LIST.{STREAM_REQUESTS}", {"offset": len(found)})
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
            await self._connection.api(f"STREAM.{change.action.upper()}.{change.name}", config)
        elif change.action == "delete":
            try:
                await self._connection.api(f"CONSUMER.DELETE.{STREAM_REQUESTS}.{change.name}")
            except ApiError as error:
                if error.err_code != _CONSUMER_NOT_FOUND:
                    raise
        else:
            # Without `action` the server would silently change an existing consumer.
            await self._connection.api(
                f"CONSUMER.CREATE.{STREAM_REQUESTS}.{change.name}.{config['filter_subject']}",
                {"stream_name": STREAM_REQUESTS, "config": config, "action": change.action},
            )


def _allowed_cap(current: int, wanted: int, messages: int) -> int:
    """The cap to set. Lowering it makes the server delete the oldest messages over it, although the stream refuses new.

    So it is lowered only on an empty stream, and not to where a burst between looking and updating could pass it.
    """
    if wanted >= current:
        return wanted
    return current if messages else min(current, max(wanted, _LOWEST_LOWERED_CAP))


def _differences(current: dict[str, Any], wanted: dict[str, Any]) -> tuple[str, ...]:
    """Names of the wanted settings that are not so. The server omits settings that are at their zero."""
    return tuple(name for name, value in wanted.items() if (current.get(name) or None) != (value or None))
