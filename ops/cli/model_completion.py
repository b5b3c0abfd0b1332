"""Model ids by Tab, from the server that the command line so far names."""

from pathlib import Path
from typing import Any

import click

_PATIENCE_S = 1.0


def complete_model(ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Ids and aliases; none, without a word, where they cannot be asked for."""
    from ops.cli.client_options import open_client
    from ops.errors import CommandError

    given: dict[str, Any] = ctx.params
    ca_file, client_cert = given.get("ca_file"), given.get("client_cert")
    try:
        with open_client(
            given.get("host") or "localhost",
            given.get("port"),
            given.get("api_key"),
            Path(ca_file) if ca_file else None,
            Path(client_cert) if client_cert else None,
        ) as client:
            models = client.get("/v1/models", timeout_s=_PATIENCE_S)["data"]
            names = [name for model in models for name in (model["id"], *(model.get("aliases") or ()))]
    except (CommandError, OSError, LookupError, TypeError):
        return []
    return [name for name in names if name.startswith(begun)]
