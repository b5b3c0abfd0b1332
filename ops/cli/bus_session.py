"""A visit to the broker for `inferctl bus`: where it is, as whom, and one-line errors."""

import functools
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ops.cli.options import given_flags, setting_options
from ops.settings import table

if TYPE_CHECKING:
    from broker.connection import Connection
    from broker.roles import Role

T = TypeVar("T")


def bus_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --data-dir, --nats-url, --nats-credentials, --json; the function gets `bus`, for `visit`, and `as_json`."""

    @setting_options(table.DATA_DIR, table.NATS_URL, table.NATS_CREDENTIALS)
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @functools.wraps(function)
    def with_bus(data_dir: str | None, nats_url: str | None, nats_credentials: str | None, **params: Any) -> Any:
        bus = {"data_dir": data_dir, "nats_url": nats_url, "nats_credentials": nats_credentials}
        return function(bus=bus, **params)

    return with_bus


async def visit(bus: Mapping[str, Any], role: "Role", work: Callable[["Connection"], Awaitable[T]]) -> T:
    """Connect in `role`, do the work, disconnect. Raises Failure with the broker's reason, or when it is not there."""
    from broker.connection import Connection
    from broker.errors import BrokerError
    from ops.errors import CannotStart, Failure
    from ops.logs import configure
    from ops.serving.broker import broker_config
    from ops.settings.loader import load

    settings = load(os.environ, given_flags(bus))
    configure(level="error", form=settings.logging.format, process="inferctl")
    try:
        connection = await Connection.open(broker_config(settings, role, "inferctl"))
        try:
            return await work(connection)
        finally:
            await connection.close()
    except (BrokerError, CannotStart) as error:
        raise Failure(str(error)) from None


def may_read(bus: Mapping[str, Any]) -> bool:
    """Whether the login of inspector-full is at hand, by name. Raises Failure when there is no broker to be found."""
    from broker.credentials import Login, find_login
    from broker.errors import BrokerUnsuitable
    from broker.roles import Role
    from ops.errors import CannotStart, Failure
    from ops.serving.broker import broker_config
    from ops.settings.loader import load

    try:
        credentials = broker_config(load(os.environ, given_flags(bus)), Role.INSPECTOR_FULL, "inferctl").credentials
        login = None if credentials is None else find_login(credentials, Role.INSPECTOR_FULL)
    except CannotStart as error:
        raise Failure(str(error)) from None
    except BrokerUnsuitable:
        return False
    return not (isinstance(login, Login) and login.user == Role.INSPECTOR)
