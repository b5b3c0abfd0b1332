"""`inferctl admin audit export`."""

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

# The first and the last line of an export are no records.
_NUM_FRAME_LINES = 2


@click.command()
@click.option(
    "--file", "path", type=click.Path(dir_okay=False, path_type=Path), help="A new file, mode 0600. [default: stdout]"
)
@client_options
def command(client: "Client", as_json: bool, path: Path | None) -> None:
    """Write all records as JSON lines, with what verifies them. With --json, --file is needed."""
    chunks = client.download("/v1/admin/audit/export")
    if path is None:
        if as_json:
            raise click.UsageError("--json needs --file: the export itself goes to stdout")
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        return
    num_records = _write(path, chunks)
    if as_json:
        print_json({"file": str(path), "records": num_records})
    else:
        click.echo(f"{num_records} records in {path}")


def _write(path: Path, chunks: Iterable[bytes]) -> int:
    """The number of records written. Leaves no file behind that is not whole."""
    num_lines = 0
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    num_lines += chunk.count(b"\n")
        except BaseException:
            path.unlink()
            raise
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    return num_lines - _NUM_FRAME_LINES
