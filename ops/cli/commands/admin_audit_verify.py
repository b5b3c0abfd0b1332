"""`inferctl admin audit verify`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options
from ops.errors import Failure

if TYPE_CHECKING:
    from ops.client.client import Client

_CHUNK_BYTES = 1 << 20
_EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--file", "path", type=_EXISTING, help="An export or an audit log, instead of what is in the broker.")
@click.option(
    "--pepper-file", type=_EXISTING,
    help="With --file: verify here, without a server, with this pepper (`<data-dir>/pepper`).",
)  # fmt: skip
@client_options
def command(client: "Client", as_json: bool, path: Path | None, pepper_file: Path | None) -> int:
    """Check that every record is as it was written, and that none is missing, moved or put in between.

    The server does it, which has the secret that records are sealed with. Exit code 1 when something is wrong.
    """
    if pepper_file is not None and path is None:
        raise click.UsageError("--pepper-file goes with --file")
    try:
        if path is None:
            report = client.get("/v1/admin/audit/verify")
        elif pepper_file is not None:
            report = _verify_here(path, pepper_file.read_bytes().strip())
        else:
            report = client.upload("/v1/admin/audit/verify", _chunks(path))
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}") from None
    print_json(report) if as_json else click.echo("\n".join(_lines(report)))
    return 0 if report["ok"] else 1


def _verify_here(path: Path, pepper: bytes) -> dict[str, Any]:
    from producer.audit.export import FileVerifier
    from producer.audit.keys import AuditKeys

    verifier = FileVerifier(AuditKeys(pepper))
    with path.open("rb") as file:
        for line in file:
            verifier.feed(line.removesuffix(b"\n"))
    return verifier.finish().as_json()


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _lines(report: dict[str, Any]) -> Iterator[str]:
    if report["records"]:
        yield f"{report['records']} records, sequences {report['first_seq']} to {report['last_seq']}"
    for each in report["problems"]:
        place = f"line {each['line']}" if each["line"] else f"sequence {each['seq']}"
        writer = f" ({each['writer']}, number {each['n']})" if each["writer"] else ""
        yield f"{place}{writer}: {each['reason']}"
    if report["num_problems"] > len(report["problems"]):
        yield f"and {report['num_problems'] - len(report['problems'])} problems more"
    yield "ok" if report["ok"] else "NOT ok"
