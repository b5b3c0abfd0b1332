"""The broker that runs already: reached, fit, logged in to with each role, prepared, and of one time with us."""

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from broker.address import bare_url
from broker.connection import Connection
from broker.credentials import find_login
from broker.errors import ApiError, BrokerError, BrokerUnavailable
from broker.roles import Role
from broker.server_config import MAX_PAYLOAD_BYTES
from broker.subjects import BUCKET_MODELS, STREAM_REQUESTS, STREAM_TOKENS, bucket_stream
from ops.doctor.check import Check
from ops.doctor.policy import check_policy
from ops.errors import CannotStart
from ops.serving.broker import broker_config
from ops.settings.settings import Settings

_TIMEOUT_S = 5.0
_ROLES = (Role.TOPOLOGY, Role.EDGE, Role.WORKER)
# What a role's processes ask first of all.
_QUESTIONS = {
    Role.TOPOLOGY: "STREAM.NAMES",
    Role.EDGE: f"STREAM.INFO.{STREAM_TOKENS}",
    Role.WORKER: f"STREAM.INFO.{bucket_stream(BUCKET_MODELS)}",
}
_STREAM_NOT_FOUND = 10059
# Deadlines are times of day: the edge writes them, the worker reads them.
_SKEW_S, _TOO_MUCH_SKEW_S = 1.0, 60.0
# Room that a broker should have left, of what it may fill.
_LEAST_ROOM = 0.05


class _Answer(NamedTuple):
    """What one role was told. `info` is that of a stream, None where it is not there."""

    version: str
    max_payload: int
    account: dict[str, Any]
    info: dict[str, Any] | None
    skew_s: float
    blur_s: float


async def check_broker(settings: Settings) -> list[Check]:
    """Nothing where no broker is named and none runs: `up` starts one."""
    try:
        broker_config(settings, Role.EDGE, "doctor")
    except CannotStart:
        return [await check_policy(settings, None)]
    answers: dict[Role, _Answer] = {}
    logins = []
    for role in _roles_with_login(settings):
        try:
            answers[role] = await _ask(settings, role)
        except BrokerUnavailable as error:
            return [_unreachable(settings, error)]
        except (BrokerError, OSError) as error:
            logins.append(Check(f"login {role}", False, _without_login(str(error), settings), _login_fix(role)))
            continue
        logins.append(Check(f"login {role}", True, "logs in, and may do what it has to"))
    if not answers:
        return logins or [Check("logins", False, f"none in {settings.nats.credentials}", _login_fix(Role.EDGE))]
    first = next(iter(answers.values()))
    prepared = _prepared(answers)
    checks = [_server(first), *logins, _payload(first), _storage(first), prepared, _clock(answers.values())]
    can_read_policy = prepared.is_ok and Role.EDGE in answers
    return [*checks, await check_policy(settings, Role.EDGE if can_read_policy else None)]


def _roles_with_login(settings: Settings) -> Sequence[Role]:
    """Those of the folder, or the one whose file it is; an edge's where the address says who logs in."""
    config = broker_config(settings, Role.EDGE, "doctor")
    if config.credentials is None:
        return (Role.EDGE,)
    if config.credentials.is_dir():
        return [role for role in _ROLES if (config.credentials / str(role)).exists()]
    try:
        login = find_login(config.credentials, Role.EDGE)
    except BrokerError:
        return (Role.EDGE,)  # whose attempt says what is wrong with it
    user = "" if isinstance(login, Path) else login.user
    return [role for role in _ROLES if str(role) == user] or (Role.EDGE,)


async def _ask(settings: Settings, role: Role) -> _Answer:
    connection = await Connection.open(broker_config(settings, role, "inferflux-doctor"), timeout_s=_TIMEOUT_S)
    try:
        account = await connection.api("INFO", timeout_s=_TIMEOUT_S)
        before = time.time()
        info: dict[str, Any] | None = None
        try:
            info = await connection.api(_QUESTIONS[role], timeout_s=_TIMEOUT_S)
        except ApiError as error:
            if error.err_code != _STREAM_NOT_FOUND:
                raise
        after = time.time()
        skew_s = _time_of(info) - (before + after) / 2 if info is not None and "ts" in info else 0.0
        return _Answer(connection.server_version, connection.max_payload, account, info, skew_s, (after - before) / 2)
    finally:
        await connection.close()


def _time_of(info: dict[str, Any]) -> float:
    return datetime.fromisoformat(str(info["ts"])).timestamp()


def _unreachable(settings: Settings, error: BrokerUnavailable) -> Check:
    return Check("NATS", False, _without_login(str(error), settings), "start nats-server with ops/deploy/nats")


def _server(answer: _Answer) -> Check:
    return Check("NATS", True, f"nats-server {answer.version}, JetStream is on")


def _payload(answer: _Answer) -> Check:
    """The last record of an answer has all of it."""
    detail = f"messages of up to {answer.max_payload / 2**20:.1f} MiB"
    if answer.max_payload >= MAX_PAYLOAD_BYTES:
        return Check("NATS messages", True, detail)
    fix = f"max_payload: {MAX_PAYLOAD_BYTES} in nats-server's configuration, as in ops/deploy/nats"
    return Check("NATS messages", False, f"{detail}: very long answers cannot end", fix, is_needed=False)


def _storage(answer: _Answer) -> Check:
    limits, used = answer.account.get("limits", {}), int(answer.account.get("storage", 0))
    most = int(limits.get("max_storage", -1))
    if most <= 0:
        return Check("NATS storage", True, f"{_gib(used)} used; the account has no limit of its own")
    detail = f"{_gib(used)} of {_gib(most)} used"
    if most - used >= most * _LEAST_ROOM:
        return Check("NATS storage", True, detail)
    return Check("NATS storage", False, detail, "raise max_file of nats-server, or inferctl bus trim-audit")


def _prepared(answers: dict[Role, _Answer]) -> Check:
    asked = [answer.info is not None for role, answer in answers.items() if role is not Role.TOPOLOGY]
    streams = (
        (answers[Role.TOPOLOGY].info or {}).get("streams") or [] if Role.TOPOLOGY in answers else [STREAM_REQUESTS]
    )
    if all(asked) and STREAM_REQUESTS in streams:
        return Check("topology", True, "streams are there")
    return Check("topology", False, "streams are missing", "inferflux topology apply")


def _clock(answers: Any) -> Check:
    told = [answer for answer in answers if answer.info is not None and "ts" in answer.info]
    if not told:
        return Check("clock", True, "the broker did not tell its time", is_needed=False)
    best = min(told, key=lambda answer: answer.blur_s)
    skew_s = max(0.0, abs(best.skew_s) - best.blur_s)
    if skew_s <= _SKEW_S:
        return Check("clock", True, f"within {skew_s + best.blur_s:.3f} s of the broker's")
    direction = "behind" if best.skew_s > 0 else "ahead of"
    detail = f"{skew_s:.1f} s {direction} the broker's; deadlines are off by as much"
    return Check("clock", False, detail, "timedatectl set-ntp true", is_needed=skew_s > _TOO_MUCH_SKEW_S)


def _login_fix(role: Role) -> str:
    return f"inferflux topology credentials --out DIR --accounts accounts.conf, and give this machine DIR/{role}"


def _without_login(text: str, settings: Settings) -> str:
    url = settings.nats.url
    return text if url is None else text.replace(url, bare_url(url))


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
