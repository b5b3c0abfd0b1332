"""`inferflux calibrate`."""

from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.options import given_flags, setting_options
from ops.settings import table

if TYPE_CHECKING:
    from ops.calibration.verdict import Verdict
    from ops.serving.plan import PlannedModel


@click.command()
@setting_options(table.CONFIG, table.DATA_DIR, table.MODEL_PATH)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool, **params: Any) -> int:
    """Measure again which backend `auto` should take for each model, and remember it.

    \b
      inferflux calibrate --model ./model.gguf
      inferflux calibrate --config server.yaml --data-dir .inferflux

    `up` and `worker` do so by themselves at the first start with a model, and after a change of model, libraries or
    machine. Nothing may run in the data directory meanwhile, as both would be slowed down. Exit code 1 when a model
    could not be measured for which speed decides.
    """
    import threading

    from ops.logs import configure
    from ops.reload.sources import SettingsSources
    from ops.serving.calibrating import calibrator_of
    from ops.serving.plan import plan_models
    from ops.supervisor.lock import DataDirLock

    settings = SettingsSources(given_flags(params)).settings
    configure(level=settings.logging.level, form=settings.logging.format, process="calibrate")
    lock = DataDirLock(settings.data_dir)
    lock.acquire()
    try:
        calibrator = calibrator_of(settings, threading.Event())
        plan = plan_models(settings)
        verdicts = [(model, calibrator.calibrate(model, again=True)) for model in plan]
        after = {model.settings.id: model for model in plan_models(settings)}
    finally:
        lock.release()
    shown = [(after[model.settings.id], verdict) for model, verdict in verdicts]
    if as_json:
        print_json({"models": [_document(model, verdict) for model, verdict in shown]})
    else:
        _print(shown)
    return 1 if any(model.rivals and (verdict is None or verdict.backend is None) for model, verdict in shown) else 0


def _document(model: "PlannedModel", verdict: "Verdict | None") -> dict[str, Any]:
    return {
        "id": model.settings.id,
        "backend": model.backend,
        "reason": model.reason,
        "calibration": None if verdict is None else verdict.model_dump(),
    }


def _print(shown: "list[tuple[PlannedModel, Verdict | None]]") -> None:
    from ops.cli.tables import print_table

    rows = [
        [
            model.settings.id,
            outcome.backend,
            outcome.figures and f"{outcome.figures.decode:.0f} at {outcome.figures.sequences}",
            outcome.figures and f"{outcome.figures.decode_alone:.0f}",
            outcome.figures and f"{outcome.figures.prefill:.0f}",
            outcome.figures and f"{outcome.figures.memory_bytes / 2**20:.0f} MiB",
            outcome.reason or ("taken" if verdict.backend == outcome.backend else ""),
        ]
        for model, verdict in shown
        if verdict is not None
        for outcome in verdict.outcomes
    ]
    if rows:
        print_table(["MODEL", "BACKEND", "TOK/S", "ALONE", "PREFILL", "MEMORY", ""], rows)
    for model, verdict in shown:
        if verdict is None:
            click.echo(f"{model.settings.id} on {model.backend} ({model.reason})")
