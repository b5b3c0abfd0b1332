"""`inferctl` for tests: command lines against one server, as a user of their own would type them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tests.system.stack import KEY, Stack


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    returncode: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        return json.loads(self.stdout)

    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.stdout.splitlines()]


class Inferctl:
    """Calls are one after another. `environ` is what every one of them sees."""

    def __init__(self, zygote: "subprocess.Popen[str]", folder: Path, environ: dict[str, str]) -> None:
        self._zygote = zygote
        self._folder = folder
        self._numbers = count()
        self.environ = environ

    def __call__(self, *arguments: str, stdin: str = "", **changes: str) -> Done:
        paths = {name: self._folder / f"{next(self._numbers)}-{name}" for name in ("stdin", "stdout", "stderr")}
        paths["stdin"].write_text(stdin)
        job = {name: str(path) for name, path in paths.items()}
        line = json.dumps({**job, "arguments": arguments, "environ": {**self.environ, **changes}})
        assert self._zygote.stdin is not None and self._zygote.stdout is not None
        self._zygote.stdin.write(f"{line}\n")
        self._zygote.stdin.flush()
        code = json.loads(self._zygote.stdout.readline())
        return Done(code, paths["stdout"].read_text(), paths["stderr"].read_text())


def users_environ(folder: Path, stack: Stack) -> dict[str, str]:
    """Of somebody with a home of their own, who uses that server."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("INFERCTL_", "INFERFLUX_"))},
        "XDG_CONFIG_HOME": str(folder / "config"),
        "INFERCTL_PORT": str(stack.port),
        "INFERCTL_API_KEY": KEY,
        "INFERFLUX_DATA_DIR": str(stack.data_dir),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }


@contextmanager
def running_inferctl(folder: Path, stack: Stack) -> Iterator[Inferctl]:
    command = [sys.executable, "-m", "tests.ops.cli.zygote"]
    environ = users_environ(folder, stack)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ, cwd=Path(__file__).parents[3]
    ) as zygote:
        try:
            yield Inferctl(zygote, folder, environ)
        finally:
            assert zygote.stdin is not None
            zygote.stdin.close()
