"""The settings as the processes use them: read, checked, frozen."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ops.settings.api_keys import ApiKey
from schemas.policy import LimitsPolicy

if TYPE_CHECKING:
    from schemas.oidc_policy import OidcPolicy


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Paths of PEM files. `ca` is who signed the other side."""

    cert: Path | None
    key: Path | None
    ca: Path | None


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`is_port_given`: only the wording of 'port taken' depends on it."""

    host: str
    http_port: int
    is_port_given: bool
    max_concurrent: int
    max_body_bytes: int
    max_upload_bytes: int
    body_timeout_s: float
    header_timeout_s: float
    request_timeout_s: float
    status_hold_s: float
    drain_timeout_s: float
    max_prompts: int
    cors_origins: tuple[str, ...]
    tls: TlsSettings | None
    unknown_parameters: str
    body_buffer_bytes: int
    stream_buffer_bytes: int
    slow_reader_timeout_s: float


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """`is_port_given`: a taken port is an error; else the next free one is used. `embedded` is false with a url."""

    url: str | None
    port: int
    is_port_given: bool
    embedded: bool
    replicas: int
    max_file_bytes: int | None
    credentials: Path | None
    tls: TlsSettings | None


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One configured model. None leaves a choice to the backend."""

    id: str
    source: str
    backend: str
    default: bool
    aliases: tuple[str, ...]
    context: int | None
    sequences: int | None
    threads: int | None
    gpu_layers: int | None
    kv_type: str | None
    batch_tokens: int | None
    chat_template: str | None
    max_output_tokens: int
    queue_max: int
    queue_max_tokens: int | None
    no_worker: str


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """`backend` is the flag's, over every model's own; `auto` where it was not given. `kv_cpu_pages` None: the
    backend's choice."""

    backend: str
    backend_priority: tuple[str, ...]
    prefer_native: bool
    allow_llama_fallback: bool
    calibrate: bool
    calibrate_limit_s: float
    enable_preemption: bool
    high_priority_threshold: int
    kv_cpu_pages: int | None
    max_timeslice_tokens: int
    memory_bytes: int | None
    parked_kv_bytes: int
    stuck_step_s: float
    kv_eviction: str
    prefix_cache_enabled: bool
    prefix_cache_scope: str


@dataclass(frozen=True, slots=True)
class AuthSettings:
    api_keys: tuple[ApiKey, ...]
    key_pepper: str | None
    oidc: "OidcPolicy | None"


@dataclass(frozen=True, slots=True)
class GuardrailSettings:
    blocklist: tuple[str, ...]
    patterns: tuple[str, ...]
    opa_endpoint: str | None
    opa_timeout_s: float
    fail_open: bool


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """`store` is absolute, or None for the default in the data directory. `passphrase_file` is where the passphrase was
    read from, None when it stood in the environment.
    """

    store: Path | None
    passphrase: str | None = field(repr=False)
    passphrase_file: Path | None
    max_stale_s: float


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """`path` is absolute: the manifest, None without one. `poll_s` also goes for the configuration file."""

    path: Path | None
    poll_s: float
    allow_downloads: bool


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    level: str
    format: str


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """`endpoint` None: nothing is traced."""

    endpoint: str | None
    sample_ratio: float
    service_name: str


@dataclass(frozen=True, slots=True)
class AuditSettings:
    level: str
    content: str
    log: Path | None


@dataclass(frozen=True, slots=True)
class AutoscaleSettings:
    """`idle_to_zero_s` None: never."""

    target_queue_wait_s: float
    min_workers: int
    max_workers: int
    idle_to_zero_s: float | None
    stabilization_s: float


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything. `models` is empty when none is configured: what is served then depends on what is installed."""

    data_dir: Path
    workers: int
    no_edge: bool
    server: ServerSettings
    nats: NatsSettings
    models: tuple[ModelSettings, ...]
    runtime: RuntimeSettings
    auth: AuthSettings
    limits: LimitsPolicy
    guardrails: GuardrailSettings
    policy: PolicySettings
    registry: RegistrySettings
    autoscale: AutoscaleSettings
    metrics_host: str
    tracing: TracingSettings
    logging: LoggingSettings
    audit: AuditSettings
