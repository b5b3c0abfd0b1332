"""`inferctl admin policy`."""

import click

from ops.cli.program import Entry, LazyGroup

_COMMANDS = "ops.cli.commands"
ENTRIES = {
    "show": Entry(f"{_COMMANDS}.admin_policy_show", "What is allowed, and where each rule comes from."),
    "versions": Entry(f"{_COMMANDS}.admin_policy_versions", "Its last versions: who changed what."),
    "rollback": Entry(f"{_COMMANDS}.admin_policy_rollback", "Make an earlier version the next one."),
    "reset": Entry(f"{_COMMANDS}.admin_policy_reset", "Let the configuration file decide on a section again."),
    "export": Entry(f"{_COMMANDS}.admin_policy_export", "Write it to a file, encrypted."),
    "import": Entry(f"{_COMMANDS}.admin_policy_import", "Make an exported file the next version."),
    "rotate-passphrase": Entry(f"{_COMMANDS}.admin_policy_rotate_passphrase", "Encrypt with another passphrase."),
}


@click.group(cls=LazyGroup, entries=ENTRIES)
def command() -> None:
    """The stored policy: what administrators decided, over the rules of the configuration file.

    \b
      inferctl admin policy show
      inferctl admin policy versions
      inferctl admin policy rollback 12
      inferctl admin policy export --out policy.backup
    """
