"""What the deployment files start, read as the commands themselves would read it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from ops.cli import inferctl, inferflux
from ops.cli.options import given_flags
from ops.settings.loader import load
from ops.settings.settings import Settings

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "ops" / "deploy"
_GROUPS = {"inferflux": inferflux.group, "inferctl": inferctl.group}


class Started(NamedTuple):
    """A command line that parses, its options by parameter name, and the settings it comes to."""

    path: tuple[str, ...]
    params: Mapping[str, object]
    settings: Settings


def read_command(words: Sequence[str], environ: Mapping[str, str], files: Mapping[str, Path]) -> Started:
    """Parse `inferflux …` and load its settings. `files` are where paths of the target machine are found here.

    Raises click.ClickException and SettingsError for what the command would refuse.
    """
    program, *arguments = (_here(word, files) for word in words)
    path: list[str] = []
    command: click.Command = _GROUPS[Path(program).name]
    context = click.Context(command, info_name=program)
    while isinstance(command, click.Group):
        found = command.get_command(context, arguments[0])
        assert found is not None, f"{program} {' '.join(path)} has no command {arguments[0]!r}"
        path.append(arguments.pop(0))
        command = found
    parsed = command.make_context(path[-1], arguments, parent=context)
    settings = load({name: _here(value, files) for name, value in environ.items()}, given_flags(parsed.params))
    return Started(tuple(path), parsed.params, settings)


def broker_variables(config: Path) -> set[str]:
    """What a configuration of nats-server reads from its environment."""
    lines = (line for line in config.read_text().splitlines() if not line.lstrip().startswith("#"))
    return {name for line in lines for name in re.findall(r"\$(NATS_\w+)", line)}


def _here(text: str, files: Mapping[str, Path]) -> str:
    for there, here in files.items():
        text = text.replace(there, str(here))
    return text
