"""Runs command lines of `inferctl`, each in a fork of one process that has imported what they need.

What a test sees is a process of its own: real streams, a real exit code. Only the imports are not repeated.
"""

import importlib
import json
import os
import sys

from ops.cli import inferctl

HEAVY = (
    "broker.dead_letters",
    "broker.peeking",
    "ops.client.client",
    "ops.logs",
    "ops.serving.broker",
    "ops.settings.loader",
    "prometheus_client.parser",
)


def main() -> None:
    for name in HEAVY:
        importlib.import_module(name)
    with open(0, "rb", buffering=0, closefd=False) as jobs:
        while line := jobs.readline():
            job = json.loads(line)
            pid = os.fork()
            if pid == 0:
                run(job)
            print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])), flush=True)


def run(job: dict[str, list[str] | dict[str, str] | str]) -> None:
    """Become that command; never returns."""
    flags = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)
    for place, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(os.open(str(job[name]), flags[place]), place)
    os.environ.clear()
    os.environ.update(job["environ"])  # type: ignore[arg-type]
    sys.argv = ["inferctl", *job["arguments"]]
    inferctl.run()


if __name__ == "__main__":
    main()
