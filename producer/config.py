"""Everything the edge is told. Built by `ops` from file, environment and flags, and read nowhere else."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from schemas.policy import GuardrailsPolicy, LimitSet, LimitsPolicy, OidcPolicy
from schemas.requests import PriorityClass


class Scope(StrEnum):
    """What a key opens. None implies another."""

    READ = "read"
    GENERATE = "generate"
    ADMIN = "admin"


class UnknownParameters(StrEnum):
    REFUSE = "refuse"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class KeySpec:
    """An API key as configured. Without a name it is called by a few digits of its hash.

    `ceiling` None means high for keys with the admin scope, normal for all others. `models` are globs over model ids.
    `limits` None means the default of all keys. `is_default`: the well-known key of a fresh installation, which holds
    until somebody decides on keys.
    """

    key: str = field(repr=False)
    name: str | None = None
    scopes: tuple[Scope, ...] = (Scope.GENERATE, Scope.READ)
    tenant: str = "default"
    models: tuple[str, ...] = ("*",)
    ceiling: PriorityClass | None = None
    limits: LimitSet | None = None
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """What opens the policy document, and where a copy of it is kept.

    Without `passphrase` it is the random secret in `key_file`, made before the first change; without either there is no
    document, and none can be made. `passphrase_file` is where the passphrase came from, and where a newer one would be.
    `store` None keeps no copy. `max_stale_s` is how long an older version may hold when the newest cannot be opened.
    """

    passphrase: str | None = field(default=None, repr=False)
    key_file: Path | None = None
    store: Path | None = None
    passphrase_file: Path | None = None
    max_stale_s: float = 300.0


class TlsFiles(NamedTuple):
    """Paths of PEM files. With `client_ca`, only clients whose certificate it signed get in."""

    cert: Path
    key: Path
    client_ca: Path | None = None


class AuditLevel(StrEnum):
    """What is recorded; each level adds to the one before."""

    CHANGES = "changes"
    DENIALS = "denials"
    REQUESTS = "requests"


class AuditContent(StrEnum):
    """What stands for prompts and answers in the records of requests."""

    NONE = "none"
    HASH = "hash"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class AuditConfig:
    """`log` is a file that gets what this edge records, besides the broker."""

    level: AuditLevel = AuditLevel.DENIALS
    content: AuditContent = AuditContent.HASH
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Where the edge is scraped without a key. `port_moves`: a taken port is no error, the next free one is used."""

    host: str = "127.0.0.1"
    port: int = 9191
    port_moves: bool = True
    scrape_timeout_s: float = 1.0


@dataclass(frozen=True, slots=True)
class AutoscaleConfig:
    """What is asked of a model's workers. `idle_to_zero_s` None: `min_workers` stay for ever."""

    target_queue_wait_s: float = 5.0
    min_workers: int = 1
    max_workers: int = 64
    idle_to_zero_s: float | None = None
    stabilization_s: float = 300.0


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    """Settings of one edge process. Times in seconds, sizes in bytes; port 0 takes a free one.

    `max_concurrent` bounds generation calls in this edge, held, queued and streaming together; each prompt of a call
    counts. `body_pace`: the seconds that any body has, and how many bytes of it earn another, up to `body_timeout_s`.
    `max_upload_bytes` is for one file, `body_buffer_bytes` for the bodies of all calls that are not queued yet,
    `stream_buffer_bytes` for what one stream has not got rid of; a client that leaves it full for
    `slow_reader_timeout_s` is cut. `run_file` lists the workers whose metrics this edge passes on; None when it runs
    alone.
    """

    edge_id: str
    pepper: bytes = field(repr=False)
    keys: tuple[KeySpec, ...]
    limits: LimitsPolicy = field(default_factory=LimitsPolicy)
    # What "per minute" means; all edges must agree. Shorter only where nobody can wait so long.
    limit_window_s: float = 60.0
    guardrails: GuardrailsPolicy = field(default_factory=GuardrailsPolicy)
    oidc: OidcPolicy | None = None
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    version: str = "0"
    host: str = "localhost"
    port: int = 8080
    max_concurrent: int = 4096
    max_body_bytes: int = 8 * 1024 * 1024
    max_upload_bytes: int = 100 * 1024 * 1024
    body_buffer_bytes: int = 64 * 1024 * 1024
    body_timeout_s: float = 60.0
    body_pace: tuple[float, int] = (15.0, 4096)
    header_timeout_s: float = 30.0
    idle_timeout_s: float = 65.0
    request_timeout_s: float = 600.0
    # The journal lives an hour, and a client may resume a quarter of an hour after the end.
    max_timeout_s: float = 2700.0
    status_hold_s: float = 10.0
    comment_interval_s: float = 4.0
    stream_buffer_bytes: int = 256 * 1024
    slow_reader_timeout_s: float = 60.0
    resume_window_s: float = 900.0
    # Of ended calls that were not journaled, for the same time; the oldest are given up first.
    kept_answers_bytes: int = 32 * 1024 * 1024
    drain_timeout_s: float = 30.0
    max_prompts: int = 64
    cors_origins: tuple[str, ...] = ()
    tls: TlsFiles | None = None
    unknown_parameters: UnknownParameters = UnknownParameters.REFUSE
    high_priority_threshold: int = 5
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    autoscale: AutoscaleConfig = field(default_factory=AutoscaleConfig)
    run_file: Path | None = None

    @property
    def longest_timeout_s(self) -> float:
        """What a client may ask for: never less than it gets without asking."""
        return max(self.max_timeout_s, self.request_timeout_s)
