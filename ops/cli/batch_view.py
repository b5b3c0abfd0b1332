"""Prints batches, and waits for one."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import click

from ops.cli.answers import print_json

if TYPE_CHECKING:
    from ops.client.batches import Batch
    from ops.client.client import Client

COLUMNS = ("batch", "status", "total", "done", "failed", "created")


def print_batches(batches: "Sequence[Batch]") -> None:
    from ops.cli.tables import print_table

    print_table(COLUMNS, [_cells(batch) for batch in batches])


def print_batch(batch: "Batch") -> None:
    """One, with what was wrong with its file on stderr."""
    print_batches([batch])
    print_errors(batch)


def print_errors(batch: "Batch") -> None:
    for error in (batch["errors"] or {}).get("data", []):
        where = f"line {error['line']}: " if error["line"] is not None else ""
        click.echo(f"{where}{error['message']} [{error['code']}]", err=True)


def follow(client: "Client", begun: "Batch", *, as_json: bool, tells_id: bool = False) -> int:
    """Show how far it is until it has ended, then what has come of it; the exit code: 0 when no line has failed.

    `tells_id`: say beforehand, on stderr, which one it is.
    """
    batch = begun
    try:
        # From here on Ctrl-C is answered.
        if tells_id:
            click.echo(begun["id"], err=True)
        from ops.cli.bar import Bar
        from ops.client.batches import has_succeeded, watch

        with Bar(begun["status"], begun["request_counts"]["total"]) as bar:
            for batch in watch(client, begun):
                counts = batch["request_counts"]
                failed = f", {counts['failed']} failed" if counts["failed"] else ""
                bar.show(counts["completed"] + counts["failed"], f"{batch['status']}{failed}")
    except BaseException:
        click.echo(f"The batch goes on. Look again with: inferctl batch status {begun['id']} --follow", err=True)
        raise
    print_json(batch) if as_json else print_batch(batch)
    return 0 if has_succeeded(batch) else 1


def _cells(batch: "Batch") -> tuple[object, ...]:
    counts = batch["request_counts"]
    created = datetime.fromtimestamp(batch["created_at"]).isoformat(sep=" ")
    return (batch["id"], batch["status"], counts["total"], counts["completed"], counts["failed"], created)
