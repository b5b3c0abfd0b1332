"""`inferctl bus trim-audit`."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ops.cli.answers import print_json
from ops.cli.bus_session import bus_options
from ops.errors import Failure

if TYPE_CHECKING:
    from broker.connection import Connection
    from producer.audit.line import Line


class _Export(NamedTuple):
    """What an export goes up to, and its last record."""

    last_seq: int
    last: "Line"


@click.command()
@click.option(
    "--exported", "path", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file made by `inferctl admin audit export`. Verify it first, and keep it.",
)  # fmt: skip
@bus_options
def command(bus: Mapping[str, Any], path: Path, as_json: bool) -> None:
    """Make room in the broker: remove the audit records that a file has, but for the last block.

    That one stays, so that file and broker can be seen to belong together. Needs the login of the role topology.
    """
    from broker.audit_stream import AuditStream
    from broker.roles import Role
    from ops.cli.bus_session import visit

    export = _read(path)

    async def trim(connection: "Connection") -> int:
        from producer.audit.line import NotARecord, parse

        stream = AuditStream(connection)
        found = await stream.read(export.last_seq, export.last_seq, limit=1)
        try:
            is_same = bool(found) and parse(found[0].payload.rpartition(b"\n")[2]).mac == export.last.mac
        except NotARecord:
            is_same = False
        if not is_same:
            raise Failure(f"the broker's block at sequence {export.last_seq} is not the one that {path} ends with")
        return await stream.trim(export.last_seq)

    num_blocks = asyncio.run(visit(bus, Role.TOPOLOGY, trim))
    if as_json:
        print_json({"removed_blocks": num_blocks, "first_seq": export.last_seq})
    else:
        click.echo(f"{num_blocks} blocks removed; the record in the broker begins at sequence {export.last_seq}")


def _read(path: Path) -> _Export:
    """Raises Failure unless it is a whole export with at least one record."""
    from producer.audit.line import NotARecord, parse

    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        head, *_, last, end = map(parse, (lines[0], *lines[-2:]))
        is_whole = end.fields["head"] == head.mac and end.fields["records"] == len(lines) - 2
        if is_whole and last.seq == head.fields["last_seq"]:
            return _Export(last.seq, last)
    except (NotARecord, IndexError, ValueError, KeyError):
        pass
    raise Failure(f"{path} is not a whole export of audit records")
