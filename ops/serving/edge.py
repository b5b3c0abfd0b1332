"""The edge's configuration from the settings."""

from ops.serving.broker import is_broker_of_data_dir
from ops.serving.keys import effective_keys, read_pepper
from ops.settings.api_keys import ApiKey
from ops.settings.settings import Settings
from ops.supervisor.run_file import run_file
from ops.version import installed_version
from producer.config import EdgeConfig, KeySpec, MetricsConfig, PolicyConfig, Scope, UnknownParameters
from schemas.requests import PriorityClass


def edge_config(settings: Settings, edge_id: str) -> EdgeConfig:
    """Raises CannotStart: no API key on a host that can be reached from elsewhere, or the pepper cannot be kept."""
    server = settings.server
    return EdgeConfig(
        edge_id=edge_id,
        pepper=read_pepper(settings),
        keys=tuple(_key_spec(key) for key in effective_keys(settings)),
        version=installed_version(),
        host=server.host,
        port=server.http_port,
        max_concurrent=server.max_concurrent,
        max_body_bytes=server.max_body_bytes,
        body_timeout_s=server.body_timeout_s,
        request_timeout_s=server.request_timeout_s,
        status_hold_s=server.status_hold_s,
        drain_timeout_s=server.drain_timeout_s,
        max_prompts=server.max_prompts,
        cors_origins=server.cors_origins,
        unknown_parameters=UnknownParameters(server.unknown_parameters),
        body_buffer_bytes=server.body_buffer_bytes,
        stream_buffer_bytes=server.stream_buffer_bytes,
        slow_reader_timeout_s=server.slow_reader_timeout_s,
        high_priority_threshold=settings.runtime.high_priority_threshold,
        metrics=MetricsConfig(host=settings.metrics_host),
        run_file=run_file(settings.data_dir),
        policy=_policy_config(settings),
    )


def _policy_config(settings: Settings) -> PolicyConfig:
    """A random key of this machine serves a broker of this machine only: edges elsewhere could not read it."""
    return PolicyConfig(
        passphrase=settings.policy.passphrase,
        key_file=settings.data_dir / "policy.key" if is_broker_of_data_dir(settings) else None,
        store=settings.policy.store or settings.data_dir / "policy.store",
    )


def _key_spec(key: ApiKey) -> KeySpec:
    return KeySpec(
        key=key.key,
        name=key.name,
        scopes=tuple(Scope(scope) for scope in key.scopes),
        tenant=key.tenant,
        models=key.models,
        ceiling=None if key.ceiling is None else PriorityClass(key.ceiling),
        is_default=key.is_default,
    )
