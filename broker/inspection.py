"""What streams and consumers a broker has, for people and tools. Role inspector; changes nothing."""

from typing import Any, NamedTuple

from broker.connection import Connection
from broker.errors import BrokerError
from broker.subjects import STREAM_REQUESTS, bucket_stream, parse_consumer

_NS = 10**9
ALL = ">"


class StreamFacts(NamedTuple):
    """A stream, its limits and what is in it. A limit that is none is None, and so is the leader of a single server."""

    name: str
    subjects: list[str]
    retention: str
    storage: str
    messages: int
    bytes: int
    max_bytes: int | None
    max_messages_per_subject: int | None
    max_age_s: float | None
    first_seq: int
    last_seq: int
    consumers: int
    replicas: int
    leader: str | None


class ConsumerFacts(NamedTuple):
    """A consumer. `model` and `priority` are those of a request queue."""

    stream: str
    name: str
    model: str | None
    priority: str | None
    filter_subject: str
    pending: int
    ack_pending: int
    redelivered: int
    waiting_pulls: int
    delivered_seq: int
    acked_seq: int
    leader: str | None


class NoSuchStream(BrokerError):
    """No stream, or more than one, is meant. The text names those that there are."""


class Target(NamedTuple):
    """What is looked at: a stream, or the part of it under a subject."""

    stream: str
    filter: str
    subjects: list[str]


async def list_streams(connection: Connection) -> list[StreamFacts]:
    """Ordered by name. Raises BrokerError."""
    found = [_stream(info) for info in await _pages(connection, "STREAM.LIST", "streams")]
    return sorted(found)


async def list_consumers(connection: Connection, stream: str) -> list[ConsumerFacts]:
    """Ordered by name. Raises BrokerError."""
    found = [_consumer(info) for info in await _pages(connection, f"CONSUMER.LIST.{stream}", "consumers")]
    return sorted(found)


async def find_stream(connection: Connection, text: str) -> str:
    """A stream by its name, a short form of it (`tokens`), or as a bucket (`models`). Raises NoSuchStream."""
    names = await _names(connection)
    for name in (text, f"INFERFLUX_{text.upper()}", bucket_stream(text)):
        if name in names:
            return name
    raise NoSuchStream(f"there is no stream {text}; there are {', '.join(names)}")


async def find_target(connection: Connection, text: str) -> Target:
    """A stream as in `find_stream`, or a subject that one stream has, wildcards and all. Raises NoSuchStream."""
    if "." not in text:
        name = await find_stream(connection, text)
        return Target(name, ALL, await _subjects(connection, name))
    found = (await connection.api("STREAM.NAMES", {"subject": text})).get("streams") or []
    if len(found) == 1:
        return Target(found[0], text, [text])
    if found:
        raise NoSuchStream(f"{text} is in several streams: {', '.join(sorted(found))}; name one of them")
    names = await _names(connection)
    raise NoSuchStream(f"no stream has {text}; there are {', '.join(names)}")


async def _names(connection: Connection) -> list[str]:
    return sorted(await _pages(connection, "STREAM.NAMES", "streams"))


async def _subjects(connection: Connection, stream: str) -> list[str]:
    subjects: list[str] = (await connection.api(f"STREAM.INFO.{stream}"))["config"].get("subjects") or []
    return subjects


async def _pages(connection: Connection, name: str, field: str) -> list[Any]:
    found: list[Any] = []
    while True:
        page = await connection.api(name, {"offset": len(found)})
        entries = page.get(field) or []
        found += entries
        if not entries or len(found) >= page["total"]:
            return found


def _stream(info: dict[str, Any]) -> StreamFacts:
    config, state = info["config"], info["state"]
    return StreamFacts(
        name=config["name"],
        subjects=config.get("subjects") or [],
        retention=config["retention"],
        storage=config["storage"],
        messages=state["messages"],
        bytes=state["bytes"],
        max_bytes=_limit(config.get("max_bytes")),
        max_messages_per_subject=_limit(config.get("max_msgs_per_subject")),
        max_age_s=config["max_age"] / _NS if config.get("max_age") else None,
        first_seq=state["first_seq"],
        last_seq=state["last_seq"],
        consumers=state["consumer_count"],
        replicas=config["num_replicas"],
        leader=_leader(info),
    )


def _consumer(info: dict[str, Any]) -> ConsumerFacts:
    model = priority = None
    if info["stream_name"] == STREAM_REQUESTS:
        try:
            name = parse_consumer(info["name"])
            model, priority = name.model, str(name.priority)
        except ValueError:
            pass  # somebody else's
    return ConsumerFacts(
        stream=info["stream_name"],
        name=info["name"],
        model=model,
        priority=priority,
        filter_subject=info["config"].get("filter_subject", ""),
        pending=info["num_pending"],
        ack_pending=info["num_ack_pending"],
        redelivered=info["num_redelivered"],
        waiting_pulls=info["num_waiting"],
        delivered_seq=info["delivered"]["stream_seq"],
        acked_seq=info["ack_floor"]["stream_seq"],
        leader=_leader(info),
    )


def _leader(info: dict[str, Any]) -> str | None:
    leader: str | None = (info.get("cluster") or {}).get("leader")
    return leader


def _limit(value: int | None) -> int | None:
    return value if value is not None and value > 0 else None
