"""Roles and what each may do on the broker, as data: one account, a user per role, and one per tenant that batches.

Lists are allow lists; what is not named is refused by the server. Workers are trusted with prompts and answers, so a
worker may write into any request's journal. An edge may read all journals, since any edge may resume any request.
"""

from enum import StrEnum
from typing import NamedTuple

from broker.subjects import (
    AUDIT_ALL,
    BATCH_ALL,
    BUCKET_BATCHES,
    BUCKET_MODELS,
    BUCKET_POLICY,
    BUCKET_WORKERS,
    CANCEL_ALL,
    EVENTS_ALL,
    FILES_ALL,
    HEARD_ALL,
    LIMITS_ALL,
    LIMITS_DAILY_ALL,
    LIVE_ALL,
    RESULTS_ALL,
    STREAM_AUDIT,
    STREAM_BATCH,
    STREAM_BLOBS,
    STREAM_DLQ,
    STREAM_FILES,
    STREAM_LIMITS,
    STREAM_LIMITS_DAILY,
    STREAM_REQUESTS,
    STREAM_RESULTS,
    STREAM_TOKENS,
    bucket_stream,
    encode_token,
    tenant_batches,
    tenant_results,
)


class Role(StrEnum):
    TOPOLOGY = "topology"
    EDGE = "edge"
    WORKER = "worker"
    BATCH = "batch"
    INSPECTOR = "inspector"
    INSPECTOR_FULL = "inspector-full"


class User(NamedTuple):
    """Who logs in: a role, and with `batch` the tenant whose it is."""

    role: Role
    tenant: str | None = None

    @property
    def name(self) -> str:
        """Fit for a file and for a token of a subject. Raises ValueError for a batch publisher of nobody."""
        if (self.role is Role.BATCH) is not bool(self.tenant):
            raise ValueError(f"the role {self.role} {'needs a' if self.role is Role.BATCH else 'has no'} tenant")
        return f"{self.role}-{encode_token(self.tenant)}" if self.tenant else str(self.role)


# The users that every deployment has. Those of tenants are made when somebody asks for them.
FIXED_USERS = tuple(User(role) for role in Role if role is not Role.BATCH)


class Permissions(NamedTuple):
    """Subjects a role may publish to and subscribe to. `responds`: it may answer requests it received."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    responds: bool = False


def inbox_prefix(role: Role, tenant: str | None = None) -> str:
    """Prefix of reply subjects. Nobody can listen to another's answers."""
    return f"_INBOX_{User(role, tenant).name}"


def permissions(role: Role, tenant: str | None = None) -> Permissions:
    """What a user may do, its inbox included."""
    granted = _batch(tenant) if role is Role.BATCH and tenant else _PERMISSIONS[role]
    return granted._replace(subscribe=(f"{inbox_prefix(role, tenant)}.>", *granted.subscribe))


def _batch(tenant: str) -> Permissions:
    """Publish batches, and read what came of them. Not the account's figures: they are of all tenants."""
    results = f"$JS.API.DIRECT.GET.{STREAM_RESULTS}.{tenant_results(tenant)}"
    return Permissions(publish=(tenant_batches(tenant), results), subscribe=())


def _watch(bucket: str) -> tuple[str, ...]:
    return _follow(bucket_stream(bucket))


def _follow(stream: str) -> tuple[str, ...]:
    """What a JournalReader of `stream` needs."""
    return (
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.CONSUMER.CREATE.{stream}.>",
        f"$JS.API.CONSUMER.DELETE.{stream}.*",
    )


_INSPECT = (
    "$JS.API.INFO",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.STREAM.INFO.*",
    "$JS.API.CONSUMER.NAMES.*",
    "$JS.API.CONSUMER.LIST.*",
    "$JS.API.CONSUMER.INFO.*.*",
)
_PERMISSIONS = {
    # The only creator of streams and request consumers. Registers models and hands back what a worker of its own held
    # when it ended, so that `up` needs no second role for either.
    Role.TOPOLOGY: Permissions(
        publish=("$JS.API.>", f"$KV.{BUCKET_MODELS}.>", f"$JS.ACK.{STREAM_REQUESTS}.>"), subscribe=()
    ),
    Role.EDGE: Permissions(
        publish=(
            "inferflux.req.>",
            "inferflux.tok.*.*.head",
            "inferflux.tok.*.*.run",
            "inferflux.blob.>",
            "inferflux.ctl.>",
            HEARD_ALL,
            EVENTS_ALL,
            "$JS.API.INFO",
            # Hand-back on behalf of a dead worker, withdrawal, depth and age of the queue.
            f"$JS.ACK.{STREAM_REQUESTS}.>",
            f"$JS.API.STREAM.MSG.DELETE.{STREAM_REQUESTS}",
            f"$JS.API.STREAM.MSG.GET.{STREAM_REQUESTS}",
            f"$JS.API.CONSUMER.INFO.{STREAM_REQUESTS}.*",
            # Read journals live and from their start; drop delivered ones.
            f"$JS.API.STREAM.MSG.GET.{STREAM_TOKENS}",
            f"$JS.API.DIRECT.GET.{STREAM_TOKENS}",
            *_follow(STREAM_TOKENS),
            f"$JS.API.STREAM.PURGE.{STREAM_TOKENS}",
            f"$JS.API.STREAM.PURGE.{STREAM_BLOBS}",
            # Queue a dead letter again, or drop it; how many there are.
            f"$JS.API.STREAM.INFO.{STREAM_DLQ}",
            f"$JS.API.STREAM.MSG.GET.{STREAM_DLQ}",
            f"$JS.API.STREAM.MSG.DELETE.{STREAM_DLQ}",
            f"$JS.API.DIRECT.GET.{STREAM_BLOBS}",
            f"$KV.{BUCKET_MODELS}.>",
            *_watch(BUCKET_MODELS),
            *_watch(BUCKET_WORKERS),
            # Rules, counters over all edges, and the record of who did what, which nobody can change.
            f"$KV.{BUCKET_POLICY}.>",
            *_watch(BUCKET_POLICY),
            f"$JS.API.STREAM.PURGE.{bucket_stream(BUCKET_POLICY)}",
            f"$JS.API.STREAM.MSG.GET.{bucket_stream(BUCKET_POLICY)}",
            f"$JS.API.DIRECT.GET.{bucket_stream(BUCKET_POLICY)}",
            f"$JS.API.DIRECT.GET.{bucket_stream(BUCKET_POLICY)}.>",
            LIMITS_ALL,
            LIMITS_DAILY_ALL,
            *(
                f"$JS.API.DIRECT.GET.{stream}{rest}"
                for stream in (STREAM_LIMITS, STREAM_LIMITS_DAILY, STREAM_AUDIT)
                for rest in ("", ".>")
            ),
            AUDIT_ALL,
            *_follow(STREAM_AUDIT),
            f"$JS.API.STREAM.MSG.GET.{STREAM_AUDIT}",
            # Take lines of batches; write, read and drop what became of them.
            f"$JS.API.CONSUMER.MSG.NEXT.{STREAM_BATCH}.*",
            f"$JS.ACK.{STREAM_BATCH}.>",
            RESULTS_ALL,
            # Keep files and jobs of tenants, queue their lines, and tell when the last result came.
            FILES_ALL,
            f"$JS.API.STREAM.MSG.GET.{STREAM_FILES}",
            f"$JS.API.DIRECT.GET.{STREAM_FILES}",
            f"$JS.API.STREAM.PURGE.{STREAM_FILES}",
            f"$JS.API.STREAM.INFO.{STREAM_FILES}",
            f"$KV.{BUCKET_BATCHES}.>",
            f"$JS.API.STREAM.MSG.GET.{bucket_stream(BUCKET_BATCHES)}",
            f"$JS.API.DIRECT.GET.{bucket_stream(BUCKET_BATCHES)}",
            BATCH_ALL,
            f"$JS.API.STREAM.MSG.GET.{STREAM_RESULTS}",
            f"$JS.API.DIRECT.GET.{STREAM_RESULTS}",
            f"$JS.API.STREAM.PURGE.{STREAM_RESULTS}",
        ),
        subscribe=("inferflux.ctl.edge.>", LIVE_ALL),
    ),
    Role.WORKER: Permissions(
        publish=(
            "inferflux.tok.*.*.run",
            "inferflux.tok.*.*.ev",
            LIVE_ALL,
            "inferflux.dlq.>",
            EVENTS_ALL,
            "$JS.API.INFO",
            f"$JS.API.CONSUMER.INFO.{STREAM_REQUESTS}.*",
            f"$JS.API.CONSUMER.MSG.NEXT.{STREAM_REQUESTS}.*",
            f"$JS.ACK.{STREAM_REQUESTS}.>",
            f"$JS.API.STREAM.MSG.GET.{STREAM_TOKENS}",
            f"$JS.API.DIRECT.GET.{STREAM_TOKENS}",
            f"$JS.API.DIRECT.GET.{STREAM_BLOBS}",
            f"$KV.{BUCKET_WORKERS}.>",
            *_watch(BUCKET_MODELS),
        ),
        subscribe=(CANCEL_ALL, "inferflux.ctl.worker.*", HEARD_ALL),
        responds=True,
    ),
    Role.INSPECTOR: Permissions(publish=_INSPECT, subscribe=("$JS.EVENT.ADVISORY.>", EVENTS_ALL)),
    # Bodies too. Not the control and live subjects: a listener there would hide the death of a worker or an edge.
    Role.INSPECTOR_FULL: Permissions(
        publish=(*_INSPECT, "$JS.API.STREAM.MSG.GET.*", "$JS.API.DIRECT.GET.*", "$JS.API.DIRECT.GET.*.>"),
        subscribe=(
            "$JS.EVENT.ADVISORY.>",
            EVENTS_ALL,
            "inferflux.req.>",
            "inferflux.tok.>",
            "inferflux.blob.>",
            "inferflux.dlq.>",
        ),
    ),
}
