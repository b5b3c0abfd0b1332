"""docs/config.md from the settings table."""

from collections.abc import Iterable
from typing import Any

from ops.settings.setting import Setting
from ops.settings.table import TABLE

INTRO = """\
# Configuration

Made by `make docs` from the one table in `ops/settings/table.py`; do not edit.

Three sources, later ones win: a YAML file (`--config`, sample: `ops/config/server.yaml`), the environment, flags.

- Every key has the variable `INFERFLUX_<SECTION>__<KEY>`: `server.http_port` is `INFERFLUX_SERVER__HTTP_PORT`. Some
  have a shorter one besides. Lists are separated by commas, maps are JSON.
- `models` is a map by id, or a list of maps with `id`. In `INFERFLUX_MODELS__<ID>__<FIELD>` the id is in capitals, with
  `_` for other characters: `INFERFLUX_MODELS__SMOLLM2_135M__CONTEXT`.
- Secrets (API keys, pepper, passphrase) come from the environment, or from the file that `<variable>_FILE` names.
- An unknown key or `INFERFLUX_*` variable stops the start, with the nearest known name. Passed over are
  `INFERFLUX_TEST_*`, `INFERFLUX_BUILD_*` and the service links of Kubernetes.
- A row marked *not in this version* is refused unless it has its default value.
- `INFERCTL_HOST`, `INFERCTL_PORT` and `INFERCTL_API_KEY` are read by `inferctl`, never by a server.
"""
TITLES = {
    "server": "Server",
    "nats": "NATS",
    "models": "Models",
    "runtime": "Runtime",
    "auth": "Keys",
    "guardrails": "Guardrails and policy",
    "registry": "Registry, metrics, traces, logs",
    "": "Processes",
}
# Sections without a title of their own stand under the one before; so do rows without a key.
_FLAG_ONLY = ("--config", "--data-dir", "--workers", "--no-edge")


def config_page() -> str:
    parts = [INTRO]
    for title, rows in _sections():
        parts.append(f"## {title}\n")
        parts.append("| key | environment | flag | default | what it does |\n|---|---|---|---|---|")
        parts[-1] = "\n".join([parts[-1], *(_row(row) for row in rows)]) + "\n"
    return "\n".join(parts)


def _sections() -> Iterable[tuple[str, list[Setting[Any]]]]:
    sections: dict[str, list[Setting[Any]]] = {}
    title = ""
    for row in TABLE:
        section = "" if row.flag in _FLAG_ONLY else row.key.split(".")[0] if row.key else None
        if section is not None:
            title = TITLES.get(section, title)
        sections.setdefault(title, []).append(row)
    return sections.items()


def _row(row: Setting[Any]) -> str:
    help_text = row.help if row.available else f"*Not in this version.* {row.help}"
    if row.kind.name == "choice":
        help_text += f" {row.kind.allowed[0].upper()}{row.kind.allowed[1:]}."
    default = row.kind.show(row.default) if row.default is not None else ""
    cells = (
        _code(row.key),
        _code(row.env) if row.env else "",
        _code(row.flag) if row.flag else "",
        _code(default),
        help_text.replace("|", "\\|"),
    )
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
