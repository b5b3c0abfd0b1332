"""`inferctl batch results`."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options
from ops.errors import Failure

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.argument("batch_id", metavar="ID")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="A file. [default: stdout]")
@click.option("--errors", is_flag=True, help="The lines that came to nothing, instead of those that were answered.")
@client_options
def command(client: "Client", as_json: bool, batch_id: str, out: Path | None, errors: bool) -> None:
    """The answers of a batch, as JSON lines; of one that runs, those that are there by now.

    \b
      inferctl batch results ID -o answers.jsonl
      inferctl batch results ID --errors

    Lines come in the order in which they were answered: tell them apart by custom_id. With --json and -o an object
    with path and lines.
    """
    from ops.client.batches import batch_path

    batch = client.get(batch_path(batch_id))
    file_id = batch["error_file_id" if errors else "output_file_id"]
    pieces = client.download(f"/v1/files/{file_id}/content") if file_id is not None else iter(())
    if file_id is None:
        click.echo(f"No line has {'failed' if errors else 'been answered'}; the batch is {batch['status']}.", err=True)
    if out is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        return
    num_lines = _write(out, pieces)
    print_json({"path": str(out), "lines": num_lines}) if as_json else click.echo(f"{num_lines} lines in {out}")


def _write(path: Path, pieces: Iterable[bytes]) -> int:
    """The number of lines written. What was there before stays until all is there."""
    num_lines = 0
    part = path.with_name(f"{path.name}.part")
    try:
        try:
            with part.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
                    num_lines += piece.count(b"\n")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    return num_lines
