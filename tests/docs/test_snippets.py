"""What the README and the guides tell a reader to run answers, on a whole stack with the echo runner."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import README, ROOT, Block, blocks, shell_commands
from tests.system.stack import Stack

GUIDE = ROOT / "docs" / "DeveloperGuide.md"
ADDRESS = "localhost:8080"
ISSUE = r"printed=$(\1); export INFERCTL_API_KEY=$(grep -o 'ifx_[A-Za-z0-9_-]*' <<< $printed | head -1)"
QUESTION = "What is the capital of France?"
SHELL = [line for line in shell_commands(README) if re.match(r"(curl|inferctl (?!admin))\b(?!.*>)", line)]
ADMINISTRATION = next(block for block in blocks(README, "sh") if "inferctl admin" in block.text)
PYTHON = blocks(README, "python")

pytestmark = pytest.mark.nats


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    yield from a_newcomers_stack(tmp_path_factory.mktemp("docs"))


@pytest.fixture
def own_stack(tmp_path: Path) -> Iterator[Stack]:
    yield from a_newcomers_stack(tmp_path)


def a_newcomers_stack(folder: Path) -> Iterator[Stack]:
    """As they start it: no key configured."""
    stack = Stack(folder / "data", "--backend", "echo")
    del stack.env["INFERFLUX_API_KEYS"]
    try:
        yield stack.start()
    finally:
        stack.stop()


def run(stack: Stack, *command: str) -> str:
    """What a command of the pages prints, with our port in place of the default one."""
    programs = Path(sys.executable).parent
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("INFERCTL_", "INFERFLUX_"))
    }
    environment |= {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "INFERCTL_PORT": str(stack.port),
    }
    here = [word.replace(ADDRESS, f"localhost:{stack.port}") for word in command]
    done = subprocess.run(here, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


@pytest.mark.parametrize("line", SHELL, ids=lambda line: " ".join(line.split()[:3]))
def test_shell_lines_of_the_readme_answer(stack: Stack, line: str) -> None:
    if line.startswith("curl") and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    output = run(stack, "bash", "-c", line)
    if line.startswith("curl"):
        assert output.count("data: ") >= 3
        assert output.endswith("data: [DONE]\n\n")
        output = "".join(re.findall(r'"content":"([^"]*)"', output))
    if QUESTION in line:
        assert "capital" in output


def test_administration_as_the_readme_shows_it(own_stack: Stack) -> None:
    """All lines in one shell, in order; what is to be pasted from the first one's output is."""
    script = re.sub(
        r"^(inferctl .* issue root [^#]*).*\nexport INFERCTL_API_KEY=\S+", ISSUE, ADMINISTRATION.text, flags=re.M
    )
    assert "printed=$(" in script
    output = run(own_stack, "bash", "-ec", script)
    assert "some phrase" in output
    assert "api_key.issue" in output


def test_there_is_something_to_run() -> None:
    assert len(PYTHON) >= 2
    assert {line.split()[0] for line in SHELL} == {"curl", "inferctl"}


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"line {block.line}")
def test_python_of_the_readme_answers(stack: Stack, block: Block) -> None:
    output = run(stack, sys.executable, "-W", "error", "-c", block.text)
    if "Last-Event-ID" in block.text:
        assert output == QUESTION
    elif "Idempotency-Key" in block.text:
        first, second = output.splitlines()
        assert first == second
        assert first.startswith("chatcmpl-")
    else:
        assert QUESTION in output


def test_the_guide_shows_a_journal(stack: Stack) -> None:
    (block,) = blocks(GUIDE, "python")
    line = f"curl -sD - http://{ADDRESS}/v1/completions -H 'Authorization: Bearer dev-key-123'"
    line += " -H 'Content-Type: application/json' -H 'Idempotency-Key: shown' -d '{\"prompt\": \"shown\"}'"
    match = re.search(r"^x-request-id: (\w+)", run(stack, "bash", "-c", line), re.M | re.I)
    assert match is not None
    records = run(stack, sys.executable, "-W", "error", "-c", block.text, str(stack.data_dir), match[1]).splitlines()
    assert [record.split()[1] for record in records[:2]] == ["head", "run"]
    assert "Finished" in records[-1]


def test_the_guides_paced_model_is_served(tmp_path: Path) -> None:
    (block,) = blocks(GUIDE, "yaml")
    config = tmp_path / "server.yaml"
    config.write_text(block.text)
    from ops.serving.plan import plan_models
    from ops.settings.loader import load

    (planned,) = plan_models(load({}, {"--config": str(config)}))
    assert (planned.backend, planned.settings.sequences) == ("echo", 4)
