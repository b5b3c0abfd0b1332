"""`inferctl`: uses and administers a running InferFlux."""

import sys

import click

from ops.cli.program import Entry, LazyGroup, main

_COMMANDS = "ops.cli.commands"
ENTRIES = {
    "status": Entry(f"{_COMMANDS}.status", "What runs, and whether it is ready."),
    "completion": Entry(f"{_COMMANDS}.completion", "Complete a text."),
    "chat": Entry(f"{_COMMANDS}.chat", "Ask a model, once or in a conversation."),
    "models": Entry(f"{_COMMANDS}.models", "List the models."),
    "batch": Entry(f"{_COMMANDS}.batch", "Leave a file of calls, and fetch the answers later."),
    "top": Entry(f"{_COMMANDS}.top", "Watch it work: queues, workers, rates."),
    "admin": Entry(f"{_COMMANDS}.admin", "Administer it: keys, rules, limits, models, workers, requests."),
    "login": Entry(f"{_COMMANDS}.login", "Log in at the issuer that the server trusts."),
    "logout": Entry(f"{_COMMANDS}.logout", "Forget that login."),
    "bus": Entry(f"{_COMMANDS}.bus", "Look at the broker."),
    "completion-script": Entry(f"{_COMMANDS}.completion_script", "Completion by Tab, for bash, zsh and fish."),
}


@click.group(cls=LazyGroup, entries=ENTRIES, context_settings={"help_option_names": ["-h", "--help"]})
def group() -> None:
    """A first session:

    \b
      inferctl status
      inferctl completion --prompt "Once upon a time" --stream
      inferctl chat --message "user:What is the capital of France?"
      inferctl chat --interactive

    Talks to localhost:8080 unless told otherwise, by flag or by INFERCTL_HOST, INFERCTL_PORT and INFERCTL_API_KEY. Exit
    codes: 0 ok, 1 failure, 2 usage, 130 Ctrl-C. NO_COLOR is honoured.
    """


def run() -> None:
    sys.exit(main(group, "inferctl", sys.argv[1:]))


if __name__ == "__main__":
    run()
