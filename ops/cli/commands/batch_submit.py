"""`inferctl batch submit`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options
from ops.errors import Failure

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--endpoint", metavar="PATH", help="What its lines call. [default: the url of the first line]")
@click.option("--metadata", metavar="KEY=VALUE", multiple=True, help="Kept with the batch; may be given again.")
@click.option("--wait", is_flag=True, help="Wait until it has ended. Ctrl-C leaves it running.")
@client_options
def command(
    client: "Client", as_json: bool, path: Path, endpoint: str | None, metadata: tuple[str, ...], wait: bool
) -> int:
    """Leave a file of calls, and print the id of the batch.

    \b
      inferctl batch submit calls.jsonl
      inferctl batch submit calls.jsonl --metadata run=night --wait && echo all answered

    Exit code 1 when the file is no good: what is wrong is said line by line. With --wait, 0 only when each line has its
    answer. With --json the batch as /v1/batches has it.
    """
    from ops.cli.bar import Bar
    from ops.cli.batch_view import follow, print_errors
    from ops.client.batches import endpoint_of, submit

    pairs = dict(_pair(text) for text in metadata)
    try:
        with Bar(path.name, path.stat().st_size, is_bytes=True) as bar:
            batch = submit(client, path, endpoint or endpoint_of(path), pairs, bar.show)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    if batch["status"] == "failed":
        if as_json:
            print_json(batch)
        print_errors(batch)
        raise Failure(f"{path} cannot be a batch ({batch['id']})")
    if wait:
        return follow(client, batch, as_json=as_json, tells_id=True)
    print_json(batch) if as_json else click.echo(batch["id"])
    return 0


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise click.UsageError(f"--metadata takes KEY=VALUE, not {text!r}.")
    return name, value
