"""`inferctl top`."""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.option(
    "--interval", "interval_s", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, metavar="SECONDS",
    help="Time between two readings; rates are over it.",
)  # fmt: skip
@click.option("--once", is_flag=True, help="Read twice, print once, leave.")
@client_options
def command(client: "Client", interval_s: float, once: bool, as_json: bool) -> None:
    """Watch it work: queues, workers, requests, time to the first token, errors. q leaves.

    \b
      inferctl top
      inferctl top --interval 10 --json >> load.jsonl
      inferctl top --once

    Needs a key with the scope read; with generate alone the models and their slots are shown. Figures of requests are
    those of the edge that answers, queues those of the fleet. Workers that `inferflux up` did not start beside that
    edge export their own metrics, so of them only the slots are known here.

    With --json one object a line: time, interval_s, requests (per_s, live, tokens_per_s, errors_per_s, errors by code),
    ttft_s and queue_wait_s (mean, p50, p95), queues (model, priority, waiting, in_hand, oldest_age_s), models, workers
    (worker, model, backend, slots, slots_used, tokens_per_s, prompt_tokens_per_s, batch_size), missing. What is not
    known is null.
    """
    from ops.top.reading import read
    from ops.top.report import report

    before = read(client)

    def next_report() -> dict[str, Any]:
        nonlocal before
        earlier, before = before, read(client)
        return report(earlier, before)

    if sys.stdout.isatty() and not once and not as_json:
        from ops.top.live import watch

        watch(client.base_url, interval_s, next_report)
        return
    for each in _every(interval_s, next_report, 1 if once else None):
        if as_json:
            print_json(each)
        else:
            _print(each, client.base_url)
        sys.stdout.flush()


def _every(interval_s: float, next_report: Callable[[], dict[str, Any]], count: int | None) -> Iterator[dict[str, Any]]:
    import time

    for _ in itertools.count() if count is None else range(count):
        time.sleep(interval_s)
        yield next_report()


def _print(report: Mapping[str, Any], where: str) -> None:
    from ops.cli.tables import print_table
    from ops.top.screen import grids, heading

    for line in heading(report, where):
        click.echo(line)
    for grid in grids(report):
        if grid.rows:
            click.echo()
            print_table(grid.columns, grid.rows)
