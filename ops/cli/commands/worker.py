"""`inferflux worker`."""

import os
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli.child_process import child_options, tell_ready
from ops.cli.options import given_flags, setting_options
from ops.settings import table

if TYPE_CHECKING:
    from ops.serving.worker_models import CardPlanner
    from ops.settings.settings import RuntimeSettings
    from workers.config import WorkerReady
    from workers.engine.config import FairnessConfig
    from workers.kv.config import KvConfig


@click.command()
@setting_options(
    table.CONFIG,
    table.DATA_DIR,
    table.NATS_URL,
    table.NATS_CREDENTIALS,
    table.BACKEND,
    table.MODEL_PATH,
    table.MEMORY_BYTES,
)
@click.option("--id", "worker_id", metavar="ID", help="Name of this worker. [default: a fresh one]")
@click.option(
    "--only", metavar="MODEL", multiple=True, help="Serve this one of the configured models; may be given again."
)
@click.option(
    "--card", metavar="MODEL", multiple=True, help="Serve this registered model, and no others; may be given again."
)
@click.option("--supervised", is_flag=True, hidden=True)
@child_options
def command(
    worker_id: str | None,
    only: tuple[str, ...],
    card: tuple[str, ...],
    supervised: bool,
    ready_file: Path | None,
    **params: Any,
) -> int:
    """Run one worker: it takes requests for its models from the broker and answers them.

    \b
      inferflux worker --data-dir .inferflux              # beside a running `up`
      inferflux worker --nats-url nats://host:4222 --nats-credentials worker.creds --model ./model.gguf

    Without --model, --only and --card it serves every registered model that it can, and follows what administrators
    load and unload. One process serves models of one backend; for further ones start further workers.

    SIGTERM hands unfinished work back; another worker continues it. A second one forces. SIGUSR1 finishes it first.
    SIGHUP reads the configuration again.
    """
    from broker.errors import BrokerError
    from broker.roles import Role
    from ops.cli.loop import run
    from ops.errors import CannotStart, Failure
    from ops.logs import configure
    from ops.reload.plain import WORKER_CONCERNS
    from ops.reload.sources import SettingsSources
    from ops.reload.worker import with_reloads
    from ops.serving.broker import broker_config
    from ops.serving.calibrating import calibrator_of, is_serving, plan_process
    from ops.serving.ids import process_id
    from ops.serving.plan import planner_of
    from ops.serving.worker_models import CardPlanner, worker_model
    from ops.telemetry.tracing import open_tracer, require_packages
    from workers.config import WorkerConfig
    from workers.runners.base import RunnerError
    from workers.worker import WorkerFailed, run_worker

    sources = SettingsSources(given_flags(params), *WORKER_CONCERNS)
    settings = sources.settings
    own_id = process_id("w", worker_id)
    configure(level=settings.logging.level, form=settings.logging.format, process=own_id)
    require_packages(settings.tracing)
    has_own = bool(only) or (bool(settings.models) and not card)
    stop_calibrating = threading.Event()
    # `up` has seen to it before; and where one serves, its requests should not wait for that.
    may_calibrate = not supervised and not is_serving(settings)
    plan = plan_process(settings, only, stop_calibrating if may_calibrate else None) if has_own else ()
    planner = CardPlanner(
        lambda: planner_of(settings),
        plan,
        is_bound=supervised,
        calibrate=calibrator_of(settings, stop_calibrating).calibrate if may_calibrate else None,
    )
    serves_all = not (only or card or params["model"] or os.environ.get(str(table.MODEL_PATH.env)))
    config = WorkerConfig(
        worker_id=own_id,
        models=tuple(worker_model(planned, settings.runtime.kv_cpu_pages) for planned in plan),
        metrics_host=settings.metrics_host,
        stuck_step_s=settings.runtime.stuck_step_s,
        fairness=_fairness_config(settings.runtime),
        kv=_kv_config(settings.runtime),
        configured={planned.settings.id: planned.card().configured for planned in plan} if supervised else {},
        wants=lambda model_id: serves_all or model_id in card,
        plan=planner,
        must_serve=has_own and not supervised,
        memory_bytes=settings.runtime.memory_bytes,
        is_supervised=supervised,
    )

    def on_ready(ready: "WorkerReady") -> None:
        tell_ready(ready_file, _facts(own_id, ready, planner))

    broker = broker_config(settings, Role.WORKER, f"inferflux-worker-{own_id}")
    try:
        with open_tracer(settings.tracing, own_id) as tracer:
            work = run_worker(config, broker, on_ready=on_ready, tracer=tracer)
            run(with_reloads(_with_end(work, stop_calibrating), sources))
    except (BrokerError, RunnerError) as error:
        raise CannotStart(str(error)) from None
    except WorkerFailed as error:
        raise Failure(str(error)) from None
    return 0


async def _with_end(work: Coroutine[Any, Any, None], ended: threading.Event) -> None:
    """Threads of the loop are waited for after it: they should know."""
    try:
        await work
    finally:
        ended.set()


def _fairness_config(runtime: "RuntimeSettings") -> "FairnessConfig":
    from workers.engine.config import FairnessConfig

    return FairnessConfig(
        enable_preemption=runtime.enable_preemption,
        max_timeslice_tokens=runtime.max_timeslice_tokens,
        parked_kv_bytes=runtime.parked_kv_bytes,
    )


def _kv_config(runtime: "RuntimeSettings") -> "KvConfig":
    from workers.kv.config import CacheScope, Eviction, KvConfig

    return KvConfig(
        is_cached=runtime.prefix_cache_enabled,
        scope=CacheScope(runtime.prefix_cache_scope),
        eviction=Eviction(runtime.kv_eviction),
    )


def _facts(worker_id: str, ready: "WorkerReady", planner: "CardPlanner") -> dict[str, Any]:
    """What the ready block and run.json show of this worker."""
    from ops.serving.threads import available_threads

    models = []
    for served in ready.models:
        threads = planner.planned[served.id].settings.threads or available_threads()
        models.append({**served.model_dump(), "threads": None if served.backend == "echo" else threads})
    backends = sorted({planned.backend for planned in planner.planned.values()})
    return {
        "id": worker_id,
        "pid": os.getpid(),
        "metrics": ready.metrics_url,
        "backend": models[0]["backend"] if models else (backends or ["none"])[0],
        "models": models,
        "failed": dict(ready.failed),
    }
