"""`inferctl bus dlq`."""

import click

from ops.cli.program import Entry, LazyGroup

_COMMANDS = "ops.cli.commands"
ENTRIES = {
    "list": Entry(f"{_COMMANDS}.bus_dlq_list", "What was given up, and why."),
    "show": Entry(f"{_COMMANDS}.bus_dlq_show", "One request: headers and parameters."),
    "retry": Entry(f"{_COMMANDS}.bus_dlq_retry", "Queue it again, as a new request."),
    "drop": Entry(f"{_COMMANDS}.bus_dlq_drop", "Remove it."),
}


@click.group(cls=LazyGroup, entries=ENTRIES)
def command() -> None:
    """Dead letters: requests that were given up, because worker after worker ended with them.

    \b
      inferctl bus dlq list
      inferctl bus dlq show ID --text
      inferctl bus dlq retry ID
      inferctl bus dlq drop ID

    They are kept for a week. ID is the request's id, as it stands in X-Request-Id or in an answer's body.
    """
