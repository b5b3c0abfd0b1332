import asyncio

import pytest

from broker.connection import Connection
from broker.errors import BrokerUnsuitable, StreamMissing
from broker.registry import Registry
from broker.roles import Role
from broker.specs import MAX_BUDGET_BYTES, MIN_BUDGET_BYTES, disk_budget, request_cap, stream_specs
from broker.subjects import STREAM_BLOBS, STREAM_DLQ, STREAM_LIMITS, STREAM_REQUESTS, STREAM_TOKENS
from broker.topology import Change, Topology
from broker.topology_keeper import TopologyKeeper
from schemas.control import ModelCard
from tests.support.nats import NatsServer
from tests.support.waiting import until

pytestmark = pytest.mark.nats


def _card(model_id: str, queue_max: int = 256) -> ModelCard:
    return ModelCard(id=model_id, source="echo", backend="echo", created=1, queue_max=queue_max)


async def _cap(connection: Connection) -> int:
    info = await connection.api(f"STREAM.INFO.{STREAM_REQUESTS}")
    cap: int = info["config"]["max_msgs_per_subject"]
    return cap


async def test_apply_makes_everything_once_and_diff_agrees(nats_server: NatsServer) -> None:
    topology = Topology(await nats_server.connect(Role.TOPOLOGY))
    models = [_card("echo"), _card("org/other")]
    wanted = await topology.diff(models, 4)
    assert {change.name for change in wanted} >= {STREAM_REQUESTS, STREAM_TOKENS, STREAM_BLOBS, STREAM_DLQ}
    assert Change("create", "consumer", "org=2Fother-normal-0") in wanted
    assert await topology.apply(models, 4) == wanted
    assert await topology.diff(models, 4) == []
    assert await topology.apply(models, 4) == []


async def test_streams_on_disk_are_still_right_after_a_restart(nats_server: NatsServer) -> None:
    connection = await nats_server.connect(Role.TOPOLOGY)
    topology = Topology(connection)
    await topology.apply([_card("echo")], 4)
    await nats_server.restart()
    assert await connection.wait_connected(10)
    # The counters of a minute live in memory, and are not worth more.
    assert await topology.diff([_card("echo")], 4) == [Change("create", "stream", STREAM_LIMITS)]


async def test_what_somebody_changed_by_hand_is_put_right(nats_server: NatsServer) -> None:
    connection = await nats_server.connect(Role.TOPOLOGY)
    topology = Topology(connection)
    await topology.apply([_card("echo")], 4)
    config = (await connection.api(f"STREAM.INFO.{STREAM_TOKENS}"))["config"]
    await connection.api(f"STREAM.UPDATE.{STREAM_TOKENS}", {**config, "max_age": 600 * 10**9, "description": "mine"})
    assert await topology.apply([_card("echo")], 4) == [Change("update", "stream", STREAM_TOKENS, ("max_age",))]
    config = (await connection.api(f"STREAM.INFO.{STREAM_TOKENS}"))["config"]
    assert (config["max_age"], config["description"]) == (3600 * 10**9, "mine")


async def test_the_cap_follows_the_fleet_up_but_never_drops_what_was_accepted(nats_server: NatsServer) -> None:
    connection = await nats_server.connect(Role.TOPOLOGY)
    edge = await nats_server.connect(Role.EDGE)
    topology = Topology(connection)
    model = _card("echo", queue_max=70)
    await topology.apply([model], 30)
    assert await _cap(connection) == 100
    for _ in range(90):
        await edge.publish_acked("inferflux.req.echo.low.0", b"x")
    await topology.apply([model], 5)
    assert (await connection.api(f"STREAM.INFO.{STREAM_REQUESTS}"))["state"]["messages"] == 90
    await connection.api(f"STREAM.PURGE.{STREAM_REQUESTS}")
    await topology.apply([model], 5)
    assert await _cap(connection) == 75


async def test_less_disk_never_drops_what_was_accepted(nats_server: NatsServer) -> None:
    connection = await nats_server.connect(Role.TOPOLOGY)
    edge = await nats_server.connect(Role.EDGE)
    await Topology(connection, max_file_bytes=1 << 30).apply([_card("echo")], 200)
    for number in range(100):
        await edge.publish_acked("inferflux.req.echo.low.0", bytes(1 << 20))
        if number < 10:
            await edge.publish_acked("inferflux.tok.e1.r1.head", bytes(1 << 20))
    smaller = Topology(connection, max_file_bytes=512 << 20)
    changes = {change.name: change.fields for change in await smaller.apply([_card("echo")], 200)}
    assert STREAM_REQUESTS not in changes
    assert changes[STREAM_TOKENS] == ("max_bytes",)
    state = (await connection.api(f"STREAM.INFO.{STREAM_REQUESTS}"))["state"]
    assert (state["messages"], state["first_seq"]) == (100, 1)
    await connection.api(f"STREAM.PURGE.{STREAM_REQUESTS}")
    assert STREAM_REQUESTS in {change.name for change in await smaller.apply([_card("echo")], 200)}


async def test_servers_without_the_room_or_the_copies_are_unsuitable(nats_server: NatsServer) -> None:
    connection = await nats_server.connect(Role.TOPOLOGY)
    with pytest.raises(BrokerUnsuitable, match=r"nats\.replicas above 1 needs a cluster"):
        await Topology(connection, replicas=3).apply([_card("echo")], 4)
    big = {"name": "BIG", "subjects": ["big"], "storage": "file"}
    free = (await connection.api("INFO"))["limits"]["max_storage"]
    await connection.api("STREAM.CREATE.BIG", {**big, "max_bytes": free - (1 << 20)})
    with pytest.raises(BrokerUnsuitable, match=r"nats\.max_file_bytes is more than the servers have"):
        await Topology(connection).apply([_card("echo")], 4)


async def test_streams_alone_are_applied_without_touching_the_cap(nats_server: NatsServer) -> None:
    topology = Topology(await nats_server.connect(Role.TOPOLOGY))
    await topology.apply([_card("echo")], 4)
    assert await topology.apply_streams() == []


async def test_consumers_of_a_removed_model_stay_until_nothing_waits_in_them(nats_server: NatsServer) -> None:
    connection = await nats_server.connect(Role.TOPOLOGY)
    edge = await nats_server.connect(Role.EDGE)
    topology = Topology(connection)
    await topology.apply([_card("old"), _card("new")], 4)
    await edge.publish_acked("inferflux.req.old.low.0", b"x")
    gone = {change.name for change in await topology.apply([_card("new")], 4) if change.action == "delete"}
    assert gone == {"old-high-0", "old-normal-0", "old-batch-0"}
    await connection.api(f"STREAM.PURGE.{STREAM_REQUESTS}")
    assert await topology.apply([_card("new")], 4) == [Change("delete", "consumer", "old-low-0")]


async def test_two_appliers_at_once_do_not_disturb_each_other(nats_server: NatsServer) -> None:
    first = Topology(await nats_server.connect(Role.TOPOLOGY))
    second = Topology(await nats_server.connect(Role.TOPOLOGY))
    models = [_card(f"m{number}") for number in range(5)]
    await asyncio.gather(first.apply(models, 4), second.apply(models, 4))
    assert await first.diff(models, 4) == []


async def test_more_consumers_than_a_page_are_all_known(nats_server: NatsServer) -> None:
    topology = Topology(await nats_server.connect(Role.TOPOLOGY), lanes=2)
    models = [_card(f"m{number}") for number in range(33)]
    await topology.apply(models, 4)
    assert await topology.diff(models, 4) == []


async def test_the_keeper_applies_for_new_models_and_after_the_loss_of_a_stream(nats_server: NatsServer) -> None:
    connection = await nats_server.connect(Role.TOPOLOGY)
    edge = await nats_server.connect(Role.EDGE)
    registry = Registry(connection)
    keeper = TopologyKeeper(Topology(connection), registry)
    await keeper.start()
    await registry.put_model(_card("echo"))
    await until(lambda: _has_consumer(connection, "echo-high-0"))
    await connection.api(f"STREAM.DELETE.{STREAM_TOKENS}")
    with pytest.raises(StreamMissing):
        await edge.publish_acked("inferflux.tok.e1.r1.run", b"x", give_up_s=0)
    await nats_server.restart()
    # Waits for the stream as an edge would.
    await edge.publish_acked("inferflux.tok.e1.r1.run", b"x")
    await keeper.close()
    await registry.close()


async def _has_consumer(connection: Connection, name: str) -> bool:
    consumers = (await connection.api(f"CONSUMER.NAMES.{STREAM_REQUESTS}"))["consumers"] or []
    return name in consumers


def test_the_budget_is_a_power_of_two_within_bounds() -> None:
    assert disk_budget(100 << 30) == MAX_BUDGET_BYTES
    assert disk_budget(9 << 30) == 8 << 30
    assert disk_budget(1) == MIN_BUDGET_BYTES
    assert disk_budget(-1) == 8 << 30
    assert disk_budget(-1, 20 << 30) == disk_budget(40 << 30, 20 << 30) == disk_budget(20 << 30, 40 << 30) == 16 << 30


def test_all_streams_fit_into_the_budget() -> None:
    specs = stream_specs(replicas=1, request_cap=1, budget=1 << 30)
    on_disk = [spec.settings["max_bytes"] for spec in specs if spec.settings["storage"] == "file"]
    assert sum(on_disk) <= 1 << 30
    assert all(spec.settings["max_bytes"] > 0 for spec in specs)


def test_the_cap_covers_waiting_and_running_requests_of_any_model() -> None:
    assert request_cap([_card("a", 10), _card("b", 20)], 8) == 28
    assert request_cap([], 0) == 1
