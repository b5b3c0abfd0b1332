"""The edge's configuration from the settings."""

import logging

from ops.errors import CannotStart
from ops.loopback import is_loopback
from ops.serving.broker import is_broker_of_data_dir
from ops.serving.keys import effective_keys, read_pepper
from ops.settings.api_keys import ApiKey
from ops.settings.settings import AuditSettings, AutoscaleSettings, Settings, TlsSettings
from ops.supervisor.run_file import run_file
from ops.version import installed_version
from producer.audit.log_file import AuditLog
from producer.config import (
    AuditConfig,
    AuditContent,
    AuditLevel,
    AutoscaleConfig,
    EdgeConfig,
    KeySpec,
    MetricsConfig,
    PolicyConfig,
    Scope,
    TlsFiles,
    UnknownParameters,
)
from producer.guardrails.errors import InvalidGuardrails
from producer.guardrails.rules import check_guardrails
from schemas.policy import GuardrailsPolicy
from schemas.requests import PriorityClass

log = logging.getLogger("inferflux.edge")


def edge_config(settings: Settings, edge_id: str) -> EdgeConfig:
    """Raises CannotStart: guardrails that cannot be used; the pepper or the audit log cannot be kept."""
    server = settings.server
    if server.tls is None and not is_loopback(server.host):
        log.warning(
            "%s can be reached from elsewhere and speaks no TLS: keys and prompts can be read on their way, unless a "
            "proxy in front speaks it (server.tls)",
            server.host,
        )
    return EdgeConfig(
        edge_id=edge_id,
        pepper=read_pepper(settings),
        keys=tuple(_key_spec(key) for key in effective_keys(settings)),
        oidc=settings.auth.oidc,
        limits=settings.limits,
        version=installed_version(),
        host=server.host,
        port=server.http_port,
        max_concurrent=server.max_concurrent,
        max_body_bytes=server.max_body_bytes,
        max_upload_bytes=server.max_upload_bytes,
        body_timeout_s=server.body_timeout_s,
        header_timeout_s=server.header_timeout_s,
        request_timeout_s=server.request_timeout_s,
        status_hold_s=server.status_hold_s,
        drain_timeout_s=server.drain_timeout_s,
        max_prompts=server.max_prompts,
        cors_origins=server.cors_origins,
        tls=_tls_files(server.tls),
        unknown_parameters=UnknownParameters(server.unknown_parameters),
        body_buffer_bytes=server.body_buffer_bytes,
        stream_buffer_bytes=server.stream_buffer_bytes,
        slow_reader_timeout_s=server.slow_reader_timeout_s,
        high_priority_threshold=settings.runtime.high_priority_threshold,
        metrics=MetricsConfig(host=settings.metrics_host),
        audit=_audit(settings.audit),
        autoscale=_autoscale(settings.autoscale),
        run_file=run_file(settings.data_dir),
        guardrails=_guardrails(settings),
        policy=policy_config(settings),
    )


def _autoscale(settings: AutoscaleSettings) -> AutoscaleConfig:
    return AutoscaleConfig(
        target_queue_wait_s=settings.target_queue_wait_s,
        min_workers=settings.min_workers,
        max_workers=settings.max_workers,
        idle_to_zero_s=settings.idle_to_zero_s,
        stabilization_s=settings.stabilization_s,
    )


def _guardrails(settings: Settings) -> GuardrailsPolicy:
    given = settings.guardrails
    policy = GuardrailsPolicy(
        blocklist=given.blocklist,
        patterns=given.patterns,
        opa_endpoint=given.opa_endpoint,
        opa_timeout_s=given.opa_timeout_s,
        fail_open=given.fail_open,
    )
    try:
        check_guardrails(policy)
    except InvalidGuardrails as error:
        raise CannotStart(f"guardrails.{error}") from None
    return policy


def policy_config(settings: Settings) -> PolicyConfig:
    """A random key of this machine serves a broker of this machine only: edges elsewhere could not read it."""
    return PolicyConfig(
        passphrase=settings.policy.passphrase,
        key_file=settings.data_dir / "policy.key" if is_broker_of_data_dir(settings) else None,
        store=settings.policy.store or settings.data_dir / "policy.store",
        passphrase_file=settings.policy.passphrase_file,
        max_stale_s=settings.policy.max_stale_s,
    )


def _tls_files(tls: TlsSettings | None) -> TlsFiles | None:
    if tls is None or tls.cert is None or tls.key is None:
        return None
    return TlsFiles(tls.cert, tls.key, tls.ca)


def _key_spec(key: ApiKey) -> KeySpec:
    return KeySpec(
        key=key.key,
        name=key.name,
        scopes=tuple(Scope(scope) for scope in key.scopes),
        tenant=key.tenant,
        models=key.models,
        ceiling=None if key.ceiling is None else PriorityClass(key.ceiling),
        limits=key.limits,
        is_default=key.is_default,
    )


def _audit(audit: AuditSettings) -> AuditConfig:
    if audit.log is not None:
        try:
            AuditLog(audit.log).check()
        except OSError as error:
            raise CannotStart(f"logging.audit_log {audit.log}: {error.strerror}") from None
    return AuditConfig(AuditLevel(audit.level), AuditContent(audit.content), audit.log)
