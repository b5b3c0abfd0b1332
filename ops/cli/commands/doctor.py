"""`inferflux doctor`."""

import os
from typing import Any

import click

from ops.cli.answers import print_json
from ops.cli.options import given_flags, setting_options
from ops.settings import table


@click.command()
@setting_options(
    table.CONFIG,
    table.HOST,
    table.HTTP_PORT,
    table.NATS_URL,
    table.NATS_CREDENTIALS,
    table.NATS_PORT,
    table.DATA_DIR,
    table.BACKEND,
    table.MODEL_PATH,
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool, **params: Any) -> int:
    """Say what is missing here, and the command that fixes it. Exit code 1 when something needed is missing.

    \b
      inferflux doctor                                                  # could `inferflux up` serve here?
      inferflux doctor --config server.yaml --nats-credentials creds    # and with that broker?

    It writes nothing but a moment's file in the data directory, and shows no secret.
    """
    import asyncio

    from ops.doctor.broker import check_broker
    from ops.doctor.check import Check
    from ops.doctor.machine import check_machine
    from ops.doctor.place import check_place
    from ops.serving.machine import this_machine
    from ops.settings.errors import SettingsError
    from ops.settings.loader import load

    machine = this_machine()
    checks = check_machine(machine)
    try:
        settings = load(os.environ, given_flags(params))
        checks += [*check_place(settings, machine), *asyncio.run(check_broker(settings))]
    except SettingsError as error:
        checks.append(Check("settings", False, str(error), "see docs/config.md"))
    is_fit = all(check.is_ok or not check.is_needed for check in checks)
    if as_json:
        print_json({"ok": is_fit, "checks": [check.as_json() for check in checks]})
    else:
        for check in checks:
            click.echo(f"{check.mark:8} {check.name:15} {check.detail}")
            if not check.is_ok:
                click.echo(f"{'':24} fix: {check.fix}")
    return 0 if is_fit else 1
