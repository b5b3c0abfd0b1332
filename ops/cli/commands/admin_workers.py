"""`inferctl admin workers`."""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client

_PATH = "/v1/admin/workers"
COLUMNS = (
    "worker",
    "state",
    "host",
    "pid",
    "version",
    "up s",
    "seen s",
    "requests",
    "model",
    "backend",
    "busy",
    "free",
)


@click.command()
@click.option("--list", "lists", is_flag=True, help="Show all of them. Also without any option.")
@click.option("--show", metavar="ID", help="Show one, with the requests it has in hand.")
@click.option("--drain", metavar="ID", help="Let it end; what it runs is handed to others at once.")
@click.option("--finish", is_flag=True, help="With --drain: what it runs, runs to its end first.")
@click.option("--cordon", metavar="ID", help="It takes nothing new, and goes on with what it has.")
@click.option("--uncordon", metavar="ID", help="It takes requests again.")
@client_options
def command(
    client: "Client",
    as_json: bool,
    lists: bool,
    show: str | None,
    drain: str | None,
    finish: bool,
    **cordons: str | None,
) -> None:
    """Show the workers, take one out of service, let it end.

    \b
      inferctl admin workers --list
      inferctl admin workers --cordon w1-1a2b3c4d
      inferctl admin workers --drain w1-1a2b3c4d --finish

    A worker that `inferflux up` started is started again when it ends: cordon one that is to stay out.
    """
    chosen = [each for each in (show, drain, *cordons.values()) if each is not None]
    if len(chosen) + lists > 1:
        raise click.UsageError("--list, --show, --drain, --cordon and --uncordon exclude each other.")
    if finish and drain is None:
        raise click.UsageError("--finish goes with --drain.")
    if drain is not None:
        _drain(client, as_json, drain, "finish" if finish else "hand_back")
        return
    for verb, worker in cordons.items():
        if worker is not None:
            _print(client.post(f"{_path(worker)}/{verb}", {}), as_json)
            return
    _print(client.get(_PATH if show is None else _path(show)), as_json)


def _drain(client: "Client", as_json: bool, worker: str, mode: str) -> None:
    drained = client.post(f"{_path(worker)}/drain", {"mode": mode})
    if as_json:
        print_json(drained)
        return
    how = "are handed back" if mode == "hand_back" else "run to their end first"
    again = "; it is started again" if drained["starts_again"] else ""
    click.echo(f"{worker} ends: {drained['num_requests']} requests {how}{again}")


def _print(body: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(body)
        return
    from ops.cli.tables import print_table

    workers = body["data"] if body["object"] == "list" else [body]
    print_table(COLUMNS, [row for worker in workers for row in _rows(worker)])
    for request_id in body.get("requests") or ():
        click.echo(request_id)


def _rows(worker: dict[str, Any]) -> list[list[object]]:
    """One for each model; the worker's own facts stand in the first."""
    state = worker["state"] if worker["answers"] else f"{worker['state']}, silent"
    uptime = None if worker["uptime_s"] is None else round(worker["uptime_s"])
    facts = [worker["id"], state, worker["host"], worker["pid"], worker["version"], uptime]
    facts += [round(worker["last_seen_s"], 1), worker["num_requests"]]
    models = [[model["id"], model["backend"], model["busy"], model["free"]] for model in worker["models"]] or [[""] * 4]
    return [[*(facts if number == 0 else [None] * len(facts)), *model] for number, model in enumerate(models)]


def _path(worker: str) -> str:
    return f"{_PATH}/{quote(worker, safe='')}"
