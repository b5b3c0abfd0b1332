"""Somebody who types what a page says, in a folder and with a home of their own, at a stack that runs."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.classes import Class, class_of
from tests.docs.pages import ROOT, Block, commands
from tests.system.stack import Stack

# What the pages say, and our stack has elsewhere.
ADDRESS = "localhost:8080"
_DATA_DIR = re.compile(r"(?<=--data-dir )\.inferflux\b")
# The key that the line before has printed, to be pasted by the reader.
_PASTED = re.compile(r"^(inferctl admin api-keys issue [^#\n]*).*\nexport INFERCTL_API_KEY=ifx_….*$", re.M)
_ISSUED = (
    r"printed=$(\1); echo $printed; export INFERCTL_API_KEY=$(grep -o 'ifx_[A-Za-z0-9_-]*' <<< $printed | head -1)"
)
_NEXT = "\0next\0"
# One process for all blocks: what takes long is to import the SDK.
_PYTHON = f"""
import json, sys
for text in json.load(sys.stdin):
    exec(compile(text, "<page>", "exec"), {{"__name__": "__main__"}})
    print({_NEXT!r}, end="", flush=True)
"""


@dataclass
class Reader:
    stack: Stack
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, given: str = "") -> str:
        """What a command prints; it has to succeed."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("INFERCTL_", "INFERFLUX_"))
        }
        environment |= {
            "HOME": str(self.folder),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "INFERCTL_PORT": str(self.stack.port),
            **self.variables,
        }
        done = subprocess.run(
            [self.here(word) for word in command],
            cwd=self.folder, env=environment, input=self.here(given), capture_output=True, text=True, timeout=50,
        )  # fmt: skip
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
        return done.stdout

    def here(self, text: str) -> str:
        text = text.replace(ADDRESS, f"localhost:{self.stack.port}")
        return _DATA_DIR.sub(str(self.stack.data_dir), text)

    def type(self, block: Block, *, then: str = "") -> str:
        """What a shell block prints, of its lines that can run; empty without such."""
        lines = [line for line in commands(block) if class_of(line) is Class.RUN]
        if not lines:
            return ""
        script = _PASTED.sub(_ISSUED, "\n".join(lines))
        output = self.run("bash", "-euo", "pipefail", "-c", f"{script}\n{then}")
        assert '{"error"' not in output, f"{script}\n{output}"
        return output

    def python(self, blocks: Sequence[Block]) -> list[str]:
        """What each block prints."""
        output = self.run(sys.executable, "-W", "error", "-c", _PYTHON, given=json.dumps([b.text for b in blocks]))
        return output.split(_NEXT)[:-1]

    def javascript(self, block: Block, packages: Path) -> str:
        place = self.folder / "node_modules"
        if not place.exists():
            place.symlink_to(packages)
        (self.folder / "page.mjs").write_text(self.here(block.text))
        return self.run("node", "page.mjs")
