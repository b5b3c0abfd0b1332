"""File < environment < flags, checked and frozen."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from ops.settings import table
from ops.settings.environment import scan
from ops.settings.errors import SettingsError
from ops.settings.models import read_models
from ops.settings.oidc import read_oidc
from ops.settings.setting import Given, Origin, Setting, read
from ops.settings.settings import (
    AuditSettings,
    AuthSettings,
    AutoscaleSettings,
    GuardrailSettings,
    LoggingSettings,
    NatsSettings,
    PolicySettings,
    RegistrySettings,
    RuntimeSettings,
    ServerSettings,
    Settings,
    TlsSettings,
    TracingSettings,
)
from ops.settings.yaml_file import ConfigFile
from schemas.policy import LimitSet, LimitsPolicy

T = TypeVar("T")


class Values:
    """What was given, by label, over the table's defaults."""

    def __init__(self, *layers: Mapping[str, Given]) -> None:
        self._given: dict[str, Given] = {}
        for layer in layers:
            self._given.update(layer)

    def get(self, setting: Setting[T]) -> T:
        given = self._given.get(setting.label)
        return setting.default if given is None else read(setting, given)

    def origin(self, setting: Setting[T]) -> Origin:
        """Where the value of a given setting comes from."""
        return self._given[setting.label].origin

    def is_given(self, setting: Setting[T]) -> bool:
        return setting.label in self._given


class Loaded(NamedTuple):
    """`values` are those of every setting but the models', by label. `config_file` is absolute."""

    settings: Settings
    values: dict[str, object]
    config_file: Path | None


def load(environ: Mapping[str, str], flags: Mapping[str, str]) -> Settings:
    """Read all sources; `flags` are texts by flag name (`--port`). Raises SettingsError, one line."""
    return load_all(environ, flags).settings


def load_all(environ: Mapping[str, str], flags: Mapping[str, str]) -> Loaded:
    """As `load`, with what comparisons need."""
    from_flags = _from_flags(flags)
    from_environment = scan(environ)
    config_path = Values(from_flags).get(table.CONFIG)
    file = ConfigFile(config_path) if config_path is not None else None
    values = Values(file.values if file else {}, from_environment.values, from_flags)
    rows = (*table.PLAIN.values(), *(row for row in table.TABLE if not row.key))
    by_label = {row.label: values.get(row) for row in rows}
    models = read_models(
        file.models if file else {},
        from_environment.models,
        model_list=values.get(table.MODEL_LIST),
        only_source=values.get(table.MODEL_PATH),
        default_id=values.get(table.DEFAULT_MODEL_ID),
    )
    settings = Settings(
        data_dir=values.get(table.DATA_DIR).expanduser().absolute(),
        workers=values.get(table.WORKERS),
        no_edge=values.get(table.NO_EDGE),
        server=_server(values),
        nats=_nats(values),
        models=models,
        runtime=_runtime(values),
        auth=_auth(values),
        limits=_limits(values),
        guardrails=_guardrails(values),
        policy=_policy(values),
        registry=_registry(values),
        autoscale=_autoscale(values),
        metrics_host=values.get(table.METRICS_HOST),
        tracing=TracingSettings(
            values.get(table.TRACING_ENDPOINT),
            values.get(table.TRACING_SAMPLE_RATIO),
            values.get(table.TRACING_SERVICE_NAME),
        ),
        logging=LoggingSettings(values.get(table.LOG_LEVEL), values.get(table.LOG_FORMAT)),
        audit=AuditSettings(
            values.get(table.AUDIT_LEVEL), values.get(table.AUDIT_CONTENT), values.get(table.AUDIT_LOG)
        ),
    )
    return Loaded(settings, by_label, None if config_path is None else config_path.absolute())


def _from_flags(flags: Mapping[str, str]) -> dict[str, Given]:
    rows = {row.flag: row for row in table.TABLE if row.flag}
    return {rows[flag].label: Given(value, Origin(f"flag {flag}", is_flag=True)) for flag, value in flags.items()}


def _server(values: Values) -> ServerSettings:
    return ServerSettings(
        host=values.get(table.HOST),
        http_port=values.get(table.HTTP_PORT),
        is_port_given=values.is_given(table.HTTP_PORT),
        max_concurrent=values.get(table.MAX_CONCURRENT),
        max_body_bytes=values.get(table.MAX_BODY_BYTES),
        max_upload_bytes=values.get(table.MAX_UPLOAD_BYTES),
        body_timeout_s=values.get(table.BODY_TIMEOUT_S),
        header_timeout_s=values.get(table.HEADER_TIMEOUT_S),
        request_timeout_s=values.get(table.REQUEST_TIMEOUT_S),
        status_hold_s=values.get(table.STATUS_HOLD_S),
        drain_timeout_s=values.get(table.DRAIN_TIMEOUT_S),
        max_prompts=values.get(table.MAX_PROMPTS),
        cors_origins=values.get(table.CORS_ORIGINS),
        tls=_server_tls(values),
        unknown_parameters=values.get(table.UNKNOWN_PARAMETERS),
        body_buffer_bytes=values.get(table.BODY_BUFFER_BYTES),
        stream_buffer_bytes=values.get(table.STREAM_BUFFER_BYTES),
        slow_reader_timeout_s=values.get(table.SLOW_READER_TIMEOUT_S),
    )


def _nats(values: Values) -> NatsSettings:
    url = values.get(table.NATS_URL)
    embedded = values.get(table.NATS_EMBEDDED)
    return NatsSettings(
        url=url,
        port=values.get(table.NATS_PORT),
        is_port_given=values.is_given(table.NATS_PORT),
        embedded=embedded and url is None,
        replicas=values.get(table.NATS_REPLICAS),
        max_file_bytes=values.get(table.NATS_MAX_FILE),
        credentials=values.get(table.NATS_CREDENTIALS),
        tls=_nats_tls(values, url),
    )


def _server_tls(values: Values) -> TlsSettings | None:
    tls = TlsSettings(values.get(table.TLS_CERT), values.get(table.TLS_KEY), values.get(table.TLS_CLIENT_CA))
    _require_pair(tls, "server.tls")
    if tls.ca is not None and tls.cert is None:
        raise SettingsError("server.tls.client_ca: clients can only be asked for a certificate with server.tls.cert")
    return tls if tls.cert is not None else None


def _nats_tls(values: Values, url: str | None) -> TlsSettings | None:
    """Of a NATS that is reached over TLS; what would be sent in the clear all the same is refused."""
    tls = TlsSettings(values.get(table.NATS_TLS_CERT), values.get(table.NATS_TLS_KEY), values.get(table.NATS_TLS_CA))
    _require_pair(tls, "nats.tls")
    schemes = {part.split("://")[0] for part in (url or "").split(",")}
    if tls == TlsSettings(None, None, None):
        return tls if schemes & {"tls", "wss"} else None
    if url is None or not schemes <= {"tls", "wss"}:
        given = next(name for name in ("ca", "cert", "key") if getattr(tls, name) is not None)
        raise SettingsError(f"nats.tls.{given} is set, but nats.url is not tls://…: nothing would be encrypted")
    return tls


def _require_pair(tls: TlsSettings, section: str) -> None:
    if (tls.cert is None) is not (tls.key is None):
        raise SettingsError(f"{section}.cert and {section}.key go together: only one of them is set")


def _runtime(values: Values) -> RuntimeSettings:
    return RuntimeSettings(
        backend=values.get(table.BACKEND),
        backend_priority=values.get(table.BACKEND_PRIORITY),
        prefer_native=values.get(table.PREFER_NATIVE),
        allow_llama_fallback=values.get(table.ALLOW_LLAMA_FALLBACK),
        calibrate=values.get(table.CALIBRATE),
        calibrate_limit_s=values.get(table.CALIBRATE_LIMIT_S),
        enable_preemption=values.get(table.ENABLE_PREEMPTION),
        high_priority_threshold=values.get(table.HIGH_PRIORITY_THRESHOLD),
        kv_cpu_pages=values.get(table.KV_CPU_PAGES) or None,
        max_timeslice_tokens=values.get(table.MAX_TIMESLICE_TOKENS),
        memory_bytes=values.get(table.MEMORY_BYTES),
        parked_kv_bytes=values.get(table.PARKED_KV_BYTES),
        stuck_step_s=values.get(table.STUCK_STEP_S),
        kv_eviction=values.get(table.KV_EVICTION),
        prefix_cache_enabled=values.get(table.PREFIX_CACHE_ENABLED),
        prefix_cache_scope=values.get(table.PREFIX_CACHE_SCOPE),
    )


def _auth(values: Values) -> AuthSettings:
    keys = values.get(table.API_KEYS) + values.get(table.MORE_API_KEYS)
    seen: set[str] = set()
    for key in keys:
        if key.key in seen:
            raise SettingsError(f"auth.api_keys: one key stands there twice{f' ({key.name})' if key.name else ''}")
        seen.add(key.key)
    return AuthSettings(api_keys=keys, key_pepper=values.get(table.KEY_PEPPER), oidc=read_oidc(values, table.PLAIN))


def _limits(values: Values) -> LimitsPolicy:
    tenants, models = values.get(table.LIMITS_OF_TENANTS), values.get(table.LIMITS_OF_MODELS)
    return LimitsPolicy(
        per_key=LimitSet(
            requests_per_minute=values.get(table.RATE_LIMIT),
            tokens_per_minute=values.get(table.LIMIT_TOKENS),
            concurrent_requests=values.get(table.LIMIT_CONCURRENT),
            tokens_per_day=values.get(table.LIMIT_TOKENS_PER_DAY),
        ),
        tenants=dict(tenants),
        models=dict(models),
    )


def _guardrails(values: Values) -> GuardrailSettings:
    return GuardrailSettings(
        blocklist=values.get(table.BLOCKLIST),
        patterns=values.get(table.PATTERNS),
        opa_endpoint=values.get(table.OPA_ENDPOINT),
        opa_timeout_s=values.get(table.OPA_TIMEOUT_S),
        fail_open=values.get(table.GUARDRAILS_FAIL_OPEN),
    )


def _policy(values: Values) -> PolicySettings:
    store, row = values.get(table.POLICY_STORE), table.POLICY_PASSPHRASE
    return PolicySettings(
        store=None if store is None else store.expanduser().absolute(),
        passphrase=values.get(row),
        passphrase_file=values.origin(row).file if values.is_given(row) else None,
        max_stale_s=values.get(table.POLICY_MAX_STALE_S),
    )


def _registry(values: Values) -> RegistrySettings:
    path = values.get(table.REGISTRY_PATH)
    return RegistrySettings(
        path=None if path is None else path.expanduser().absolute(),
        poll_s=values.get(table.REGISTRY_POLL_MS) / 1000,
        allow_downloads=values.get(table.ALLOW_DOWNLOADS),
    )


def _autoscale(values: Values) -> AutoscaleSettings:
    fewest, most = values.get(table.AUTOSCALE_MIN), values.get(table.AUTOSCALE_MAX)
    if fewest > most:
        raise SettingsError(f"autoscale.min_workers is {fewest}, more than autoscale.max_workers, which is {most}")
    return AutoscaleSettings(
        target_queue_wait_s=values.get(table.AUTOSCALE_WAIT_S),
        min_workers=fewest,
        max_workers=most,
        idle_to_zero_s=values.get(table.AUTOSCALE_IDLE_S),
        stabilization_s=values.get(table.AUTOSCALE_STABILIZATION_S),
    )


def data_dir(environ: Mapping[str, str], flag: str | None) -> Path:
    """The data directory alone, for commands that need no other setting."""
    text = flag or environ.get("INFERFLUX_DATA_DIR") or str(table.DATA_DIR.default)
    return Path(text).expanduser().absolute()
