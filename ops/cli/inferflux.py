"""`inferflux`: runs the processes."""

import sys

import click

from ops.cli.program import Entry, LazyGroup, main
from ops.version import installed_version

_COMMANDS = "ops.cli.commands"
ENTRIES = {
    "up": Entry(f"{_COMMANDS}.up", "Run broker, edge and workers on this machine."),
    "edge": Entry(f"{_COMMANDS}.edge", "Run one edge (HTTP) against a broker."),
    "worker": Entry(f"{_COMMANDS}.worker", "Run one worker (model) against a broker."),
    "topology": Entry(f"{_COMMANDS}.topology", "Streams, consumers, buckets and logins of the broker."),
    "doctor": Entry(f"{_COMMANDS}.doctor", "Say what is missing here, and the command that fixes it."),
    "calibrate": Entry(f"{_COMMANDS}.calibrate", "Measure which backend is the fastest here, and remember it."),
    "completion-script": Entry(f"{_COMMANDS}.completion_script", "Completion by Tab, for bash, zsh and fish."),
}


def _show_version(ctx: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        click.echo(f"inferflux {installed_version()}")
        ctx.exit()


@click.group(cls=LazyGroup, entries=ENTRIES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, callback=_show_version, expose_value=False, is_eager=True, help="Print it.")
def group() -> None:
    """A first session:

    \b
      inferflux up                              # in one terminal; Ctrl-C drains and stops
      inferctl completion --prompt "Once upon"  # in another
      inferctl chat --interactive

    InferFlux serves large language models behind an OpenAI-compatible API, with NATS JetStream in the middle.
    """


def run() -> None:
    sys.exit(main(group, "inferflux", sys.argv[1:]))


if __name__ == "__main__":
    run()
