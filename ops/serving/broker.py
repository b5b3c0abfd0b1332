"""Where the broker is and how to log in: given by address, or found in the data directory of a running `up`."""

from pathlib import Path

from broker.address import bare_url
from broker.connection import BrokerConfig
from broker.roles import Role
from broker.tls import TlsFiles
from ops.errors import CannotStart
from ops.settings.settings import NatsSettings, Settings
from ops.supervisor.run_file import read_run_file


def credentials_dir(data_dir: Path) -> Path:
    """The role files of the embedded nats-server."""
    return data_dir / "nats" / "creds"


def is_broker_of_data_dir(settings: Settings) -> bool:
    """Whether the broker is the one that an `up` runs in this data directory, named by address or not."""
    if settings.nats.url is None:
        return True
    running = read_run_file(settings.data_dir)
    return running is not None and running.nats.pid is not None and running.nats.url == bare_url(settings.nats.url)


def broker_tls(nats: NatsSettings) -> TlsFiles | None:
    return None if nats.tls is None else TlsFiles(nats.tls.ca, nats.tls.cert, nats.tls.key)


def broker_config(settings: Settings, role: Role, name: str) -> BrokerConfig:
    """How `role` reaches the broker. Raises CannotStart when neither an address nor a running `up` is there."""
    if settings.nats.url is not None:
        return BrokerConfig(settings.nats.url, role, name, settings.nats.credentials, tls=broker_tls(settings.nats))
    running = read_run_file(settings.data_dir)
    if running is None:
        raise CannotStart(
            f"no broker: nothing runs in {settings.data_dir} (start `inferflux up` there, or give --nats-url)"
        )
    credentials = settings.nats.credentials or credentials_dir(settings.data_dir)
    tls = TlsFiles() if running.nats.url.startswith(("tls://", "wss://")) else None
    return BrokerConfig(running.nats.url, role, name, credentials, tls=tls)
