"""Settings, data directory, disk, ports: where it would run."""

import os
from pathlib import Path

from broker.address import bare_url
from ops.doctor.certificates import check_certificates
from ops.doctor.check import Check
from ops.doctor.disk import check_disk, nearest_existing
from ops.doctor.resources import check_resources
from ops.errors import CommandError
from ops.hub.errors import NotHere
from ops.loopback import DEV_KEY
from ops.serving.keys import effective_keys, require_keys
from ops.serving.machine import Machine
from ops.serving.plan import plan_models
from ops.settings.settings import Settings
from ops.supervisor.ports import addresses, is_free
from ops.supervisor.run_file import Running, read_run_file


def check_place(settings: Settings, machine: Machine) -> list[Check]:
    running = read_run_file(settings.data_dir)
    return [
        _keys(settings),
        *_models(settings, machine),
        *check_certificates(settings),
        _data_dir(settings.data_dir),
        *check_disk(settings.data_dir),
        _http_port(settings, running),
        _nats_port(settings, running),
    ]


def _keys(settings: Settings) -> Check:
    try:
        require_keys(settings)
    except CommandError as error:
        return Check("API keys", False, str(error), "export INFERFLUX_API_KEYS=$(openssl rand -hex 24)")
    keys = effective_keys(settings)
    if settings.auth.oidc is not None:
        return Check("API keys", True, f"{len(keys)} configured, and tokens of {settings.auth.oidc.issuer}")
    if settings.auth.api_keys:
        return Check("API keys", True, f"{len(keys)} configured")
    if not keys:
        return Check("API keys", True, "none configured: only those of the stored policy, if there is one")
    return Check("API keys", True, f"none configured: {DEV_KEY}, on loopback only")


def _models(settings: Settings, machine: Machine) -> list[Check]:
    """What would be served, by which backend, and why; and whether there is room for it."""
    try:
        plan = plan_models(settings, machine, may_download=False)
    except NotHere as error:
        return [_not_here(settings, str(error))]
    except CommandError as error:
        return [Check("models", False, str(error), "inferflux up --backend echo")]
    shown = "; ".join(f"{model.settings.id} on {model.backend} ({model.reason})" for model in plan)
    return [Check("models", True, shown), *check_resources(settings, machine, plan)]


def _not_here(settings: Settings, reason: str) -> Check:
    if settings.registry.allow_downloads:
        return Check("models", True, f"{reason.split(': ')[0]} is downloaded at the first start")
    return Check("models", False, reason)


def _data_dir(folder: Path) -> Check:
    existing = nearest_existing(folder)
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Check("data directory", True, str(folder))
    return Check("data directory", False, f"{folder} cannot be written", "inferflux up --data-dir DIR")


def _http_port(settings: Settings, running: Running | None) -> Check:
    server = settings.server
    name = f"port {server.http_port}"
    if all(is_free(address, server.http_port) for address in addresses(server.host)):
        return Check(name, True, "free")
    if running is not None and running.edge is not None and running.edge.url.endswith(f":{server.http_port}"):
        return Check(name, True, f"served by the edge that runs in {settings.data_dir}")
    return Check(name, False, "taken by another program", f"inferflux up --port {server.http_port + 1}")


def _nats_port(settings: Settings, running: Running | None) -> Check:
    port = settings.nats.port
    if settings.nats.url is not None:
        return Check("NATS port", True, f"elsewhere: {bare_url(settings.nats.url)}")
    if is_free("127.0.0.1", port) or (running is not None and running.nats.url.endswith(f":{port}")):
        return Check(f"port {port}", True, "free, or used by our own nats-server")
    if settings.nats.is_port_given:
        return Check(f"port {port}", False, "taken by another program", f"inferflux up --nats-port {port + 1}")
    return Check(f"port {port}", True, "taken; the next free one will be used")
