"""Where the broker is: by address, or in the data directory of a running `up`."""

from pathlib import Path

import pytest

from broker.roles import Role
from ops.errors import CannotStart
from ops.serving.broker import broker_config
from ops.settings.loader import load
from ops.supervisor.run_file import Running, RunningProcess, write_run_file


def test_a_running_up_is_found_by_its_data_directory(tmp_path: Path) -> None:
    settings = load({}, {"--data-dir": str(tmp_path)})
    with pytest.raises(CannotStart, match="nothing runs in"):
        broker_config(settings, Role.WORKER, "w")
    write_run_file(tmp_path, Running(RunningProcess(1, "nats://127.0.0.1:4333")))
    config = broker_config(settings, Role.WORKER, "w")
    assert (config.url, config.role, config.credentials) == (
        "nats://127.0.0.1:4333",
        Role.WORKER,
        tmp_path / "nats/creds",
    )


def test_an_address_comes_with_its_own_credentials(tmp_path: Path) -> None:
    flags = {"--data-dir": str(tmp_path), "--nats-url": "nats://far:4222", "--nats-credentials": "creds"}
    config = broker_config(load({}, flags), Role.EDGE, "e")
    assert (config.url, config.credentials) == ("nats://far:4222", Path("creds"))
