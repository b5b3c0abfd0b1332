"""`inferctl admin audit`."""

import click

from ops.cli.program import Entry, LazyGroup

_COMMANDS = "ops.cli.commands"
ENTRIES = {
    "list": Entry(f"{_COMMANDS}.admin_audit_list", "The latest records, or those that fit."),
    "verify": Entry(f"{_COMMANDS}.admin_audit_verify", "Whether all are there, as they were written."),
    "export": Entry(f"{_COMMANDS}.admin_audit_export", "All of them as a file that can be verified."),
}


@click.group(cls=LazyGroup, entries=ENTRIES)
def command() -> None:
    """The audit record: changes by administrators, refused credentials, forbidden requests.

    \b
      inferctl admin audit list --action auth --since 2027-01-31
      inferctl admin audit verify
      inferctl admin audit export --file audit.jsonl
      inferctl admin audit verify --file audit.jsonl
    """
