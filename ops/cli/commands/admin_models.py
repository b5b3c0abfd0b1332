"""`inferctl admin models`."""

from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options
from ops.settings.table import BACKENDS

if TYPE_CHECKING:
    from ops.client.client import Client

_PATH = "/v1/admin/models"
COLUMNS = ("model", "state", "backend", "origin", "source", "remark")


@click.command()
@click.option(
    "--list", "lists", is_flag=True, help="Show what is registered and who serves it. Also without any option."
)
@click.option("--load", "source", metavar="SOURCE", help="Load a model, or one of the same id again, and wait for it.")
@click.option("--id", "model_id", metavar="ID", help="With --load: its id. [default: the file's stem]")
@click.option("--backend", type=click.Choice(("auto", *BACKENDS)), help="With --load: what runs it. [default: auto]")
@click.option("--default", "as_default", is_flag=True, help="With --load: it becomes the default model.")
@click.option("--unload", "unloaded", metavar="ID", help="Take a model out; what is queued for it is still answered.")
@click.option("--set-default", "new_default", metavar="ID", help="Make a model the default.")
@client_options
def command(
    client: "Client",
    as_json: bool,
    lists: bool,
    source: str | None,
    model_id: str | None,
    backend: str | None,
    as_default: bool,
    unloaded: str | None,
    new_default: str | None,
) -> None:
    """Show, load and unload models, and set the default, while requests go on.

    \b
      inferctl admin models --list
      inferctl admin models --load ./model.gguf --id my-model --default
      inferctl admin models --set-default my-model
      inferctl admin models --unload smollm2-135m

    A path is one of the workers' machine. Other options of a model: PATCH /v1/admin/models/ID.
    """
    if sum((lists, source is not None, unloaded is not None, new_default is not None)) > 1:
        raise click.UsageError("--list, --load, --unload and --set-default exclude each other.")
    if source is None and (model_id is not None or backend is not None or as_default):
        raise click.UsageError("--id, --backend and --default go with --load.")
    if source is not None:
        _load(client, as_json, _body(client, source, model_id, backend, as_default))
    elif unloaded is not None:
        _say(client.send("DELETE", f"{_PATH}/{_quoted(unloaded)}"), as_json, f"{unloaded} is unloaded")
    elif new_default is not None:
        _say(client.put(f"{_PATH}/default", {"id": new_default}), as_json, f"{new_default} is the default")
    else:
        show_list(client.get(_PATH), as_json=as_json)


def _body(client: "Client", source: str, model_id: str | None, backend: str | None, as_default: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"source": _absolute(client, source)}
    if model_id is not None:
        body["id"] = model_id
    if backend is not None:
        body["backend"] = backend
    return {**body, "default": True} if as_default else body


def _absolute(client: "Client", source: str) -> str:
    """A file that is here, where the server is too, is meant from here and not from the server's folder."""
    from pathlib import Path
    from urllib.parse import urlsplit

    from ops.loopback import is_loopback

    path = Path(source).expanduser()
    is_here = is_loopback(urlsplit(client.base_url).hostname or "") and path.exists()
    return str(path.absolute()) if is_here else source


def _load(client: "Client", as_json: bool, body: dict[str, Any]) -> None:
    """Ask for it, show how far it is on a terminal, and end with what came of it."""
    from ops.cli.load_progress import follow
    from ops.errors import Failure

    model = follow(client, client.post(_PATH, body))
    if as_json:
        print_json(model)
    if model["state"] == "failed":
        reasons = "; ".join(dict.fromkeys(entry["reason"] for entry in model["failed"]))
        raise Failure(f"the model {model['id']} does not load: {reasons}")
    if not as_json:
        backends = ", ".join(sorted({entry["backend"] for entry in model["backends"]}))
        click.echo(f"{model['id']} is served on {backends}")


def show_list(body: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(body)
        return
    from ops.cli.tables import print_table

    print_table(COLUMNS, [_row(model) for model in body["data"]])
    manifest = body.get("manifest")
    if manifest is not None:
        for line in _manifest_lines(manifest):
            click.echo(line)


def _manifest_lines(manifest: dict[str, Any]) -> list[str]:
    """What there is to say about the manifest where not all is as it wants."""
    from datetime import datetime

    from ops.cli.terminal_text import safe

    lines = [f"manifest: {entry['reason']}, and left as it is" for entry in manifest["skipped"]]
    if not manifest["used"]:
        since = datetime.fromtimestamp(manifest["since"]).astimezone().isoformat(" ", "seconds")
        lines.append(f"manifest {manifest['path']} is not used since {since}, its models stay: {manifest['error']}")
    return [safe(line) for line in lines]


def _row(model: dict[str, Any]) -> tuple[object, ...]:
    name = f"{model['id']} (default)" if model["default"] else model["id"]
    backends = ", ".join(sorted({entry["backend"] for entry in model["backends"]}))
    remarks = [f"{entry['worker']}: {entry['reason']}" for entry in model["failed"]]
    remarks += [f"{entry['worker']}: {entry['stage']}" for entry in model["loading"]]
    return (name, model["state"], backends, model["origin"], model["source"], "; ".join(remarks))


def _say(body: dict[str, Any], as_json: bool, text: str) -> None:
    print_json(body) if as_json else click.echo(text)


def _quoted(model_id: str) -> str:
    from urllib.parse import quote

    return quote(model_id)
