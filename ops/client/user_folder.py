"""Where `inferctl` keeps what belongs to its user: logins, and what was typed in chats."""

import os
from collections.abc import Mapping
from pathlib import Path


def user_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Not made yet. Relative where nobody knows whose home it is, and then of no use."""
    folder = environ.get("XDG_CONFIG_HOME") or "~/.config"
    # Unlike pathlib's, this leaves the ~ there.
    return Path(os.path.expanduser(folder), "inferflux")
