"""The stored policy, on a real broker."""

import asyncio
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.policy_bucket import KEY
from broker.roles import Role
from broker.subjects import BUCKET_POLICY, bucket_stream, bucket_subject
from producer.policy.copy import PolicyCopy
from producer.policy.errors import Damaged, NoSecret, WrongPepper, WrongSecret
from producer.policy.key_changes import revoke, rotate
from producer.policy.secret import Secret
from schemas.audit import AuditEvent, Outcome
from schemas.errors import ErrorCode, ServingError
from tests.conftest import Broker
from tests.producer.policy.stores import ACTOR, policy_config, running_store, unguarded
from tests.producer.policy.tenants import with_tenant
from tests.support.counts import full_or
from tests.support.nats import start_nats
from tests.support.waiting import until

pytestmark = pytest.mark.nats

ROLES = (Role.TOPOLOGY, Role.EDGE, Role.WORKER)


async def broker_state(broker: Broker) -> object:
    """What is stored, as far as the broker counts it."""
    state = (await broker.topology.api(f"STREAM.INFO.{bucket_stream(BUCKET_POLICY)}"))["state"]
    return {name: value for name, value in state.items() if name != "consumer_count"}


async def lose_bucket(broker: Broker) -> None:
    """As a broker does whose disk is lost."""
    await broker.topology.api(f"STREAM.DELETE.{bucket_stream(BUCKET_POLICY)}")
    await broker.apply()


async def test_a_change_holds_at_once_and_at_every_other_edge(broker: Broker) -> None:
    async with running_store(broker) as one, running_store(broker) as two:
        assert (one.store.version, one.limit) == (0, 0)
        document = await one.set_limit(7)
        assert (document.changed_by, document.action, one.limit) == ("root", "limits.set", 7)
        await until(lambda: two.limit == 7)
        await two.set_limit(8)
        await until(lambda: one.limit == 8)
        assert (one.store.version, two.store.version) == (2, 2)


async def test_it_is_still_there_after_a_restart_of_edges_and_broker(broker: Broker) -> None:
    async with running_store(broker) as one:
        await one.set_limit(7)
    await broker.server.restart()
    async with running_store(broker) as again:
        assert (again.store.version, again.limit) == (1, 7)


async def test_nothing_of_the_document_can_be_read_in_the_broker_or_in_the_copy(broker: Broker, tmp_path: Path) -> None:
    config = policy_config(tmp_path / "edge")
    async with running_store(broker, config) as one:
        await one.set_limit(7)
        assert config.store is not None
        await until(config.store.exists)
        copy = config.store.read_bytes()
        assert stat.S_IMODE(config.store.stat().st_mode) == 0o600
        [entry] = await one.store.history()
    assert copy == entry.data
    for word in (b"requests_per_minute", b"root", b"limits"):
        assert word not in copy


async def test_concurrent_changes_from_two_edges_are_all_kept(broker: Broker) -> None:
    async with running_store(broker) as one, running_store(broker) as two:
        names = [f"tenant-{number}" for number in range(30)]
        await asyncio.gather(
            *(
                (one if number % 2 else two).store.change(ACTOR, "limits.set", with_tenant(name))
                for number, name in enumerate(names)
            )
        )
        await until(lambda: one.store.version == two.store.version == len(names))
        assert set(one.live.current.limits.tenants) == set(two.live.current.limits.tenants) == set(names)


async def test_without_a_passphrase_or_a_key_file_nothing_can_be_changed(broker: Broker) -> None:
    async with running_store(broker, policy_config(passphrase=None)) as one:
        with pytest.raises(ServingError, match="INFERFLUX_POLICY_PASSPHRASE") as refused:
            await one.set_limit(7)
    assert refused.value.code is ErrorCode.POLICY_UNAVAILABLE


async def test_two_processes_of_a_machine_make_one_key_file(broker: Broker, tmp_path: Path) -> None:
    config = policy_config(tmp_path, passphrase=None)
    async with running_store(broker, config) as one, running_store(broker, config) as two:
        await asyncio.gather(one.set_limit(1), two.set_limit(2))
        await until(lambda: one.store.version == two.store.version == 2)
    assert config.key_file is not None
    assert stat.S_IMODE(config.key_file.stat().st_mode) == 0o600
    async with running_store(broker, config) as again:
        assert again.store.encryption == "key file"


async def test_an_earlier_version_comes_back_and_what_was_revoked_does_not(broker: Broker) -> None:
    async with running_store(broker) as one:
        await one.add_key("k1", "first")
        await one.add_key("k2", "second")
        await one.set_limit(7)
        await one.store.change(ACTOR, "api_key.rotate", rotate("k2", one.digest("newer"), 0))
        await one.store.change(ACTOR, "api_key.revoke", revoke("k1"))
        versions = await one.store.versions()
        assert [version.opened.document.action for version in versions if version.opened] == [
            "api_key.issue", "api_key.issue", "limits.set", "api_key.rotate", "api_key.revoke"
        ]  # fmt: skip
        document = await one.store.rollback(ACTOR, 2, unguarded)
        assert (one.store.version, one.limit, set(document.api_keys)) == (6, 0, {"k2"})
        assert [one.opens(secret) for secret in ("first", "second", "newer")] == [False, False, True]
        with pytest.raises(ServingError) as refused:
            await one.store.rollback(ACTOR, 99, unguarded)
        assert refused.value.code is ErrorCode.VERSION_NOT_FOUND


async def test_an_export_is_taken_by_another_installation(broker: Broker, tmp_path: Path) -> None:
    async with running_store(broker) as one:
        await one.add_key("k1", "first")
        exported = await one.store.exported(Secret.of_passphrase("another passphrase"))
        await one.store.change(ACTOR, "api_key.revoke", revoke("k1"))
        await one.set_limit(7)
        with pytest.raises(WrongSecret):
            await one.store.import_(ACTOR, exported, None, unguarded)
        await one.store.import_(ACTOR, exported, Secret.of_passphrase("another passphrase"), unguarded)
        assert (one.store.version, one.limit, one.opens("first")) == (4, 0, False)
    other = await start_nats(tmp_path / "other")
    elsewhere = Broker(other, broker.model, *[await other.connect(role) for role in ROLES])
    await elsewhere.apply()
    async with running_store(elsewhere) as two:
        await two.store.import_(ACTOR, exported, Secret.of_passphrase("another passphrase"), unguarded)
        assert two.opens("first")
    await lose_bucket(elsewhere)
    async with running_store(elsewhere, pepper=b"another") as three:
        with pytest.raises(WrongPepper):
            await three.store.import_(ACTOR, exported, Secret.of_passphrase("another passphrase"), unguarded)
        assert three.store.version == 0
    await other.close()


async def test_after_a_new_passphrase_edges_with_the_old_one_say_so_and_keep_the_last_good(
    broker: Broker, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    old, new = policy_config(tmp_path / "old"), policy_config(tmp_path / "new", "another long passphrase")
    async with running_store(broker, old) as one, running_store(broker) as two:
        await one.set_limit(7)
        await until(lambda: two.limit == 7)
        await one.store.rotate_passphrase(ACTOR, "another long passphrase")
        assert (one.store.version, len(await one.store.versions())) == (2, 1)
        await one.set_limit(8)
        await until(lambda: two.store.fault is not None)
        assert isinstance(two.store.fault, WrongSecret)
        assert two.limit == 7
        with pytest.raises(ServingError, match="does not open it") as refused:
            await two.set_limit(9)
        assert refused.value.code is ErrorCode.POLICY_UNAVAILABLE
        async with running_store(broker, new) as three:
            assert three.limit == 8
        with pytest.raises(WrongSecret, match="this passphrase does not open it"):
            async with running_store(broker, old):
                pass
        assert one.limit == 8


async def test_what_cannot_be_opened_stops_the_start_and_nothing_is_touched(broker: Broker, tmp_path: Path) -> None:
    good = policy_config(tmp_path / "one")
    async with running_store(broker, good) as one:
        await one.set_limit(7)
        assert good.store is not None
        await until(good.store.exists)
    before = good.store.read_bytes(), await broker_state(broker)
    with pytest.raises(WrongSecret):
        async with running_store(broker, policy_config(tmp_path / "one", "wrong passphrase")):
            pass
    with pytest.raises(NoSecret):
        async with running_store(broker, policy_config(None, None)):
            pass
    assert (good.store.read_bytes(), await broker_state(broker)) == before


async def test_a_tampered_entry_is_not_used(broker: Broker) -> None:
    async with running_store(broker) as one:
        await one.set_limit(7)
        [entry] = await one.store.history()
        changed = bytearray(entry.data)
        changed[len(changed) // 2] ^= 1
        subject = bucket_subject(BUCKET_POLICY, KEY)
        await broker.edge.publish_acked(subject, bytes(changed))
        await until(lambda: isinstance(one.store.fault, Damaged))
        assert one.limit == 7
        # An old version that somebody puts back is none either.
        await broker.edge.publish_acked(subject, entry.data)
        await until(lambda: one.store.fault is None)
        await one.set_limit(8)
        await broker.edge.publish_acked(subject, entry.data)
        await until(lambda: "version 1 came after version 2" in str(one.store.fault))
        assert one.limit == 8


async def test_another_pepper_is_named_when_keys_are_stored(broker: Broker) -> None:
    async with running_store(broker) as one:
        await one.set_limit(7)
        async with running_store(broker, pepper=b"another") as two:
            assert two.limit == 7
        await one.add_key("k1", "first")
    with pytest.raises(WrongPepper, match="INFERFLUX_KEY_PEPPER"):
        async with running_store(broker, pepper=b"another"):
            pass


async def test_the_copy_brings_the_policy_back_when_the_broker_has_lost_its_data(
    broker: Broker, tmp_path: Path
) -> None:
    config = policy_config(tmp_path / "edge")
    async with running_store(broker, config) as one:
        await one.add_key("k1", "first")
        await one.store.change(ACTOR, "api_key.revoke", revoke("k1"))
        await one.set_limit(7)
        assert config.store is not None
        await until(lambda: PolicyCopy(config.store).version() == 3)  # type: ignore[arg-type]
        await lose_bucket(broker)

        async def is_back() -> bool:
            return len(await one.store.versions()) == 1

        await until(is_back)
        assert one.limit == 7
    await lose_bucket(broker)
    async with running_store(broker, config) as again:
        assert (again.store.version, again.limit, again.opens("first")) == (3, 7, False)
        assert (await again.set_limit(8)).limits is not None


async def test_a_change_that_cannot_be_recorded_is_not_made(broker: Broker) -> None:
    class Full:
        async def require(self, event: AuditEvent) -> None:
            raise ServingError(ErrorCode.AUDIT_UNAVAILABLE, "The record is full.")

    async with running_store(broker, audit=Full()) as one:
        with pytest.raises(ServingError, match="record is full"):
            await one.set_limit(7)
        assert (one.store.version, one.limit) == (0, 0)


async def test_each_change_is_recorded_once_however_often_it_is_tried(broker: Broker) -> None:
    class Record:
        def __init__(self) -> None:
            self.events: list[AuditEvent] = []

        async def require(self, event: AuditEvent) -> None:
            self.events.append(event)

    record = Record()
    async with running_store(broker, audit=record) as one, running_store(broker, audit=record) as two:
        await asyncio.gather(*(store.set_limit(number) for number in range(10) for store in (one, two)))
    assert [(event.action, event.outcome, event.actor) for event in record.events] == [
        ("limits.set", Outcome.ALLOWED, "root")
    ] * 20


@pytest.mark.slow
async def test_changes_are_seen_by_two_edges(broker: Broker, record_property: Callable[[str, object], None]) -> None:
    """How long, from the call of the change until both edges go by it; reported, not judged."""
    count = full_or(1000, reduced=100)
    async with running_store(broker) as one, running_store(broker) as two:
        await one.set_limit(1)
        seen: dict[int, dict[str, float]] = {}
        for name, each in (("one", one), ("two", two)):
            each.live.on_change(
                lambda policy, name=name: seen.setdefault(  # type: ignore[misc]
                    policy.limits.per_key.requests_per_minute, {}
                ).setdefault(name, time.perf_counter())
            )
        delays = []
        for number in range(2, 2 + count):
            began = time.perf_counter()
            await (one if number % 2 else two).set_limit(number)
            await until(lambda number=number: len(seen.get(number, {})) == 2, every_s=0.001)  # type: ignore[misc]
            delays.append(max(seen[number].values()) - began)
        delays.sort()
    p50, p99 = (round(delays[int(share * (count - 1))] * 1000, 1) for share in (0.5, 0.99))
    print(f"{count} changes seen by two edges: p50 {p50} ms, p99 {p99} ms, most {delays[-1] * 1000:.1f} ms")
    record_property("p99_ms", p99)
    assert set(range(2, 2 + count)) <= set(seen)


async def test_a_change_that_comes_in_while_another_is_recorded_is_not_lost(broker: Broker) -> None:
    async with running_store(broker) as two:

        class Overtaken:
            """Between the record and the write of the first change another edge makes its own."""

            is_first = True

            async def require(self, event: AuditEvent) -> None:
                if self.is_first:
                    self.is_first = False
                    await two.store.change(ACTOR, "limits.set", with_tenant("theirs"))
                    await until(lambda: one.store.version == 1)

        async with running_store(broker, audit=Overtaken()) as one:
            document = await one.store.change(ACTOR, "limits.set", with_tenant("ours"))
    assert document.limits is not None
    assert set(document.limits.tenants) == {"ours", "theirs"}


async def test_old_versions_make_room_for_new_ones(broker: Broker) -> None:
    """Else a large document would keep the next key from being revoked."""
    stream = bucket_stream(BUCKET_POLICY)
    config = (await broker.topology.api(f"STREAM.INFO.{stream}"))["config"]
    await broker.topology.api(f"STREAM.UPDATE.{stream}", {**config, "max_bytes": 8192})
    async with running_store(broker) as one, running_store(broker) as two:
        for number in range(30):
            await one.add_key(f"k{number}", f"secret-{number}")
        await until(lambda: two.store.version == 30)
        assert 1 <= len(await one.store.versions()) < 30
        await one.store.change(ACTOR, "api_key.revoke", revoke("k0"))
        with pytest.raises(ServingError, match="no room") as refused:
            for number in range(30, 300):
                await one.add_key(f"k{number}", f"secret-{number}")
        assert (refused.value.code, one.store.fault) == (ErrorCode.POLICY_UNAVAILABLE, None)


async def test_a_copy_that_is_ahead_of_the_broker_is_taken(broker: Broker, tmp_path: Path) -> None:
    """As after a power cut, when the broker has lost its last writes; a revocation among them must not be undone."""
    config = policy_config(tmp_path / "edge")
    assert config.store is not None
    copy = PolicyCopy(config.store)
    async with running_store(broker, config) as one:
        await one.add_key("k1", "first")
        [before] = await one.store.history()
        await one.store.change(ACTOR, "api_key.revoke", revoke("k1"))
        await until(lambda: copy.version() == 2)
    await lose_bucket(broker)
    await broker.edge.publish_acked(bucket_subject(BUCKET_POLICY, KEY), before.data)
    async with running_store(broker, config) as again, running_store(broker) as other:
        assert [(each.store.version, each.opens("first")) for each in (again, other)] == [(2, False)] * 2


async def test_a_copy_of_another_installation_is_left_alone(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = policy_config(tmp_path / "edge")
    assert config.store is not None
    async with running_store(broker, config) as one:
        for number in range(3):
            await one.set_limit(number)
        await until(lambda: PolicyCopy(config.store).version() == 3)  # type: ignore[arg-type]
    theirs = config.store.read_bytes()
    await lose_bucket(broker)
    async with running_store(broker) as other:
        await other.set_limit(7)
    async with running_store(broker, config) as again:
        assert (again.store.version, again.limit) == (1, 7)
        await again.set_limit(8)
        assert config.store.read_bytes() == theirs
