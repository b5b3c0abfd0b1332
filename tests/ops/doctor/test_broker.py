"""What the doctor says of a broker that runs, on a real one."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from broker.credentials import Login, write_login
from ops.doctor import broker as doctor
from ops.doctor.broker import check_broker
from ops.doctor.check import Check
from ops.settings.loader import load
from ops.settings.settings import Settings
from producer.config import PolicyConfig
from tests.conftest import Broker
from tests.producer.policy.stores import running_store
from tests.support.nats import NatsServer
from tests.support.ports import free_port

pytestmark = pytest.mark.nats


def settings_for(url: str, credentials: Path, tmp_path: Path, **environ: str) -> Settings:
    flags = {"--nats-url": url, "--nats-credentials": str(credentials), "--data-dir": str(tmp_path / "data")}
    return load(environ, flags)


def by_name(checks: Sequence[Check]) -> dict[str, Check]:
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.is_ok or check.fix for check in checks)
    return {check.name: check for check in checks}


async def test_a_broker_that_is_fit(broker: Broker, tmp_path: Path) -> None:
    checks = by_name(await check_broker(settings_for(broker.server.url, broker.server.credentials, tmp_path)))
    assert all(check.is_ok for check in checks.values()), checks
    assert {"NATS", "login topology", "login edge", "login worker", "NATS messages", "NATS storage"} <= set(checks)
    assert {"topology", "clock"} <= set(checks)
    assert "JetStream is on" in checks["NATS"].detail
    assert checks["stored policy"].detail == "nothing is stored"


async def test_without_streams_the_command_that_makes_them(nats_server: NatsServer, tmp_path: Path) -> None:
    checks = by_name(await check_broker(settings_for(nats_server.url, nats_server.credentials, tmp_path)))
    assert not checks["topology"].is_ok and checks["topology"].fix == "inferflux topology apply"
    assert checks["NATS"].is_ok and checks["login edge"].is_ok


async def test_logins_that_do_not_hold_or_are_missing(broker: Broker, tmp_path: Path) -> None:
    creds = tmp_path / "some"
    creds.mkdir()
    shutil.copy(broker.server.credentials / "worker", creds)
    write_login(creds / "edge", Login("edge", "p-wrong-password"))
    checks = by_name(await check_broker(settings_for(broker.server.url, creds, tmp_path)))
    assert checks["login worker"].is_ok and "login topology" not in checks
    assert not checks["login edge"].is_ok and checks["login edge"].is_needed
    assert not any("p-wrong-password" in check.detail + check.fix for check in checks.values())
    own = by_name(await check_broker(settings_for(broker.server.url, creds / "worker", tmp_path)))
    assert set(own) & {"login worker", "login edge"} == {"login worker"}
    (creds / "edge").unlink()
    (creds / "worker").unlink()
    (none,) = await check_broker(settings_for(broker.server.url, creds, tmp_path))
    assert not none.is_ok and none.name == "logins"


async def test_nothing_listens_and_no_login_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_TIMEOUT_S", 0.3)
    flags = {"--nats-url": f"nats://edge:hidden-word@127.0.0.1:{free_port()}", "--data-dir": str(tmp_path)}
    (check,) = await check_broker(load({}, flags))
    assert (check.name, check.is_ok, check.is_needed) == ("NATS", False, True)
    assert "hidden-word" not in check.detail + check.fix


async def test_no_broker_named_and_none_runs_is_for_up_to_start(tmp_path: Path) -> None:
    (check,) = await check_broker(load({}, {"--data-dir": str(tmp_path)}))
    assert (check.name, check.is_ok) == ("stored policy", True)


async def test_the_passphrase_opens_the_stored_policy_or_not(broker: Broker, tmp_path: Path) -> None:
    config = PolicyConfig(passphrase="the right passphrase")
    async with running_store(broker, config) as store:
        await store.set_limit(7)
    place = broker.server.url, broker.server.credentials, tmp_path
    for passphrase, is_ok in (("the right passphrase", True), ("another passphrase", False)):
        checks = by_name(await check_broker(settings_for(*place, INFERFLUX_POLICY_PASSPHRASE=passphrase)))
        assert checks["stored policy"].is_ok is is_ok, checks["stored policy"]
        assert passphrase not in checks["stored policy"].detail
    assert not by_name(await check_broker(settings_for(*place)))["stored policy"].is_ok


@pytest.mark.parametrize(
    ("skew_s", "is_ok", "is_needed"), [(0.2, True, False), (-5.0, False, False), (90.0, False, True)]
)
def test_clocks_apart(skew_s: float, is_ok: bool, is_needed: bool) -> None:
    check = doctor._clock([doctor._Answer("2.12.0", 8 << 20, {}, {"ts": "…"}, skew_s, 0.05)])
    assert (check.is_ok, check.is_ok or check.is_needed is is_needed) == (is_ok, True)


def test_a_broker_without_room_or_with_small_messages() -> None:
    answer = doctor._Answer("2.12.0", 1 << 20, {"limits": {"max_storage": 100 << 30}, "storage": 99 << 30}, None, 0, 0)
    assert not doctor._storage(answer).is_ok
    assert doctor._storage(answer._replace(account={**answer.account, "storage": 10 << 30})).is_ok
    assert not doctor._payload(answer).is_ok and doctor._payload(answer).fix
    assert doctor._payload(answer._replace(max_payload=8 << 20)).is_ok
