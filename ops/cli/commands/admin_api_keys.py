"""`inferctl admin api-keys`."""

import click

from ops.cli.program import Entry, LazyGroup

_COMMANDS = "ops.cli.commands"
ENTRIES = {
    "list": Entry(f"{_COMMANDS}.admin_api_keys_list", "All keys, without their secrets."),
    "issue": Entry(f"{_COMMANDS}.admin_api_keys_issue", "A new key, printed this once."),
    "rotate": Entry(f"{_COMMANDS}.admin_api_keys_rotate", "A new secret for a key; the old one opens for a while."),
    "update": Entry(f"{_COMMANDS}.admin_api_keys_update", "Change what a key opens."),
    "revoke": Entry(f"{_COMMANDS}.admin_api_keys_revoke", "End a key everywhere, and its running streams."),
}


@click.group(cls=LazyGroup, entries=ENTRIES)
def command() -> None:
    """API keys, of the store and of the configuration file.

    \b
      inferctl admin api-keys issue app --scope generate --model 'smollm*' --expires-in 90d
      inferctl admin api-keys rotate app --grace 1h
      inferctl admin api-keys revoke app
    """
