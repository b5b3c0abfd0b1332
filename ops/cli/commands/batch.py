"""`inferctl batch`."""

import click

from ops.cli.program import Entry, LazyGroup

_COMMANDS = "ops.cli.commands"
ENTRIES = {
    "submit": Entry(f"{_COMMANDS}.batch_submit", "Leave a file of calls."),
    "status": Entry(f"{_COMMANDS}.batch_status", "How far batches are."),
    "results": Entry(f"{_COMMANDS}.batch_results", "The answers, as JSON lines."),
    "cancel": Entry(f"{_COMMANDS}.batch_cancel", "Begin no more of its lines."),
    "list": Entry(f"{_COMMANDS}.batch_list", "The batches of the last days."),
}


@click.group(cls=LazyGroup, entries=ENTRIES)
def command() -> None:
    """Batches: files of calls that are answered while nothing more urgent waits, within a day.

    \b
      inferctl batch submit calls.jsonl --wait
      inferctl batch status
      inferctl batch results ID -o answers.jsonl
      inferctl batch results ID --errors

    A line of the file is a JSON object with custom_id, method, url and body, as for OpenAI's batches. ID is what submit
    prints. A batch is kept for six days, a file for seven.
    """
