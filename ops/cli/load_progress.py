"""Follows the loading of a model until it is served or has failed, with a bar where somebody watches."""

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ops.client.client import Client

_POLL_S = 0.2
# A process has to start first, and maybe a library to be read.
_NOBODY_S = 60.0
_PATH = "/v1/admin/models"


def follow(client: "Client", model: dict[str, Any]) -> dict[str, Any]:
    """The model as it is at the end. Raises Failure: nobody begins to load it, or somebody unloads it meanwhile."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from ops.errors import Failure

    model_id = model["id"]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    waiting_since = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"{model_id}: waiting for a worker", total=None)
        while model["state"] not in ("served", "failed"):
            if model["loading"]:
                waiting_since = time.monotonic()
                farthest = max(model["loading"], key=lambda entry: entry["fraction"] or 0.0)
                total = None if farthest["fraction"] is None else 1.0
                bar.update(
                    task,
                    description=f"{model_id}: {farthest['stage']}",
                    total=total,
                    completed=farthest["fraction"] or 0.0,
                )
            elif time.monotonic() - waiting_since > _NOBODY_S:
                raise Failure(f"no worker has begun to load {model_id} for {_NOBODY_S:.0f} s; it stays registered")
            time.sleep(_POLL_S)
            models = client.get(_PATH)["data"]
            found = next((entry for entry in models if entry["id"] == model_id), None)
            if found is None:
                raise Failure(f"{model_id} was unloaded meanwhile")
            model = found
    return model
