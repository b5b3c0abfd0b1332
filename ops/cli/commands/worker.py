"""`inferflux worker`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli.child_process import child_options, tell_ready
from ops.cli.options import given_flags, setting_options
from ops.settings import table

if TYPE_CHECKING:
    from ops.serving.plan import PlannedModel
    from ops.settings.settings import RuntimeSettings
    from workers.config import WorkerModel, WorkerReady
    from workers.engine.config import FairnessConfig
    from workers.kv.config import KvConfig


@click.command()
@setting_options(table.CONFIG, table.DATA_DIR, table.NATS_URL, table.NATS_CREDENTIALS, table.BACKEND, table.MODEL_PATH)
@click.option("--id", "worker_id", metavar="ID", help="Name of this worker. [default: a fresh one]")
@click.option(
    "--only", metavar="MODEL", multiple=True, help="Serve this one of the configured models; may be given again."
)
@child_options
def command(worker_id: str | None, only: tuple[str, ...], ready_file: Path | None, **params: Any) -> int:
    """Run one worker: it takes requests for its models from the broker and answers them.

    \b
      inferflux worker --data-dir .inferflux              # beside a running `up`
      inferflux worker --nats-url nats://host:4222 --nats-credentials worker.creds --model ./model.gguf

    One process serves models of one backend; with more of them configured, start a worker for each with --only.

    SIGTERM hands unfinished work back; another worker continues it. A second one forces.
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
    from ops.serving.ids import process_id
    from ops.serving.plan import plan_models, refuse_mixture
    from workers.config import WorkerConfig
    from workers.runners.base import RunnerError
    from workers.worker import WorkerFailed, run_worker

    sources = SettingsSources(given_flags(params), *WORKER_CONCERNS)
    settings = sources.settings
    own_id = process_id("w", worker_id)
    configure(level=settings.logging.level, form=settings.logging.format, process=own_id)
    plan = plan_models(settings, only=only)
    refuse_mixture(plan)
    config = WorkerConfig(
        worker_id=own_id,
        models=tuple(_worker_model(planned, settings.runtime.kv_cpu_pages) for planned in plan),
        metrics_host=settings.metrics_host,
        stuck_step_s=settings.runtime.stuck_step_s,
        fairness=_fairness_config(settings.runtime),
        kv=_kv_config(settings.runtime),
    )

    def on_ready(ready: "WorkerReady") -> None:
        tell_ready(ready_file, _facts(own_id, ready, plan))

    broker = broker_config(settings, Role.WORKER, f"inferflux-worker-{own_id}")
    try:
        run(with_reloads(run_worker(config, broker, on_ready=on_ready), sources))
    except (BrokerError, RunnerError) as error:
        raise CannotStart(str(error)) from None
    except WorkerFailed as error:
        raise Failure(str(error)) from None
    return 0


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


def _worker_model(planned: "PlannedModel", kv_pages: int | None) -> "WorkerModel":
    from workers.config import WorkerModel
    from workers.runners.base import RunnerSpec

    settings = planned.settings
    spec = RunnerSpec(
        model_id=settings.id,
        source=planned.source.location,
        context=settings.context,
        sequences=settings.sequences,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
        kv_type=settings.kv_type,
        batch_tokens=settings.batch_tokens,
        chat_template=planned.chat_template,
        kv_pages=kv_pages,
    )
    return WorkerModel(spec, planned.backend, planned.reason, settings.max_output_tokens)


def _facts(worker_id: str, ready: "WorkerReady", plan: "tuple[PlannedModel, ...]") -> dict[str, Any]:
    """What the ready block and run.json show of this worker."""
    from ops.serving.threads import available_threads

    threads = {
        planned.settings.id: None if planned.backend == "echo" else planned.settings.threads or available_threads()
        for planned in plan
    }
    models = [{**served.model_dump(), "threads": threads[served.id]} for served in ready.models]
    return {"id": worker_id, "pid": os.getpid(), "metrics": ready.metrics_url, "models": models}
