"""The sources of the settings, to be read again."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ops.settings import table
from ops.settings.errors import SettingsError
from ops.settings.loader import Loaded, load_all
from ops.settings.settings import Settings
from ops.watch.file_watch import mark_of

# What every process makes hold at once.
_LIVE = ("auth.", "limits.", "guardrails.", "logging.level", "audit.level", table.MORE_API_KEYS.label)


class Again(NamedTuple):
    """`needs_restart` are the names of other settings that are not what they were at the start."""

    settings: Settings
    needs_restart: tuple[str, ...]


class SettingsSources:
    """File, environment and flags of this process. `concerns` are beginnings of the names that it uses at all."""

    def __init__(self, flags: Mapping[str, str], *concerns: str) -> None:
        """Raises SettingsError."""
        self._flags = flags
        self._concerns = concerns
        given = flags.get(str(table.CONFIG.flag))
        # Before it is read: what changes while it is read is a change.
        self.config_mark = None if given is None else mark_of(Path(given).expanduser())
        self._first = load_all(os.environ, flags)

    @property
    def settings(self) -> Settings:
        """As they were at the start."""
        return self._first.settings

    @property
    def config_file(self) -> Path | None:
        return self._first.config_file

    def read(self) -> Again:
        """Read them again. Raises SettingsError in one line, CannotStart for a secret's file that is away."""
        path = self.config_file
        if path is not None and not path.read_bytes().strip():
            raise SettingsError(f"{path}: it is empty")
        again = load_all(os.environ, self._flags)
        return Again(again.settings, tuple(self._changed(again)))

    def _changed(self, again: Loaded) -> list[str]:
        return [
            name
            for name, value in again.values.items()
            if name.startswith(self._concerns) and not name.startswith(_LIVE) and value != self._first.values[name]
        ]
