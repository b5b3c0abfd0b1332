"""What README and guides tell a reader to run answers, on whole stacks with the echo runner."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.serving.plan import plan_models
from ops.settings.loader import load
from tests.docs.pages import ADMIN_GUIDE, DEVELOPER_GUIDE, PRD, README, ROOT, USER_GUIDE, Block, blocks
from tests.docs.reader import ADDRESS, Reader
from tests.support.npm import node_modules
from tests.system.stack import Stack

QUESTION = "What is the capital of France?"
ADMINISTRATION = next(block for block in blocks(README, "sh") if "inferctl admin" in block.text)
# Pages whose reader has found a stack without a key, as `make up` starts it.
NEWCOMERS = (README, USER_GUIDE, DEVELOPER_GUIDE)
PROGRAMS = (README, USER_GUIDE)

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]


def name(page: Path) -> str:
    return page.name


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    yield from a_newcomer(tmp_path_factory.mktemp("newcomer"))


@pytest.fixture(scope="module")
def administrator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Reader, str]]:
    """A newcomer who has done what the README says of administration; and what that printed."""
    for reader in a_newcomer(tmp_path_factory.mktemp("administrator")):
        printed = reader.type(ADMINISTRATION, then='echo "key $INFERCTL_API_KEY"')
        output, _, key = printed.rpartition("key ")
        reader.variables["INFERCTL_API_KEY"] = key.strip()
        yield reader, output


def a_newcomer(folder: Path) -> Iterator[Reader]:
    stack = Stack(folder / "data", "--backend", "echo")
    del stack.env["INFERFLUX_API_KEYS"]
    try:
        yield Reader(stack.start(), folder)
    finally:
        stack.stop()


@pytest.mark.parametrize("page", NEWCOMERS, ids=name)
def test_commands_answer(newcomer: Reader, page: Path) -> None:
    outputs = {block: newcomer.type(block) for block in blocks(page, "sh") if "inferctl admin" not in block.text}
    assert any(outputs.values())
    for block, output in outputs.items():
        if "curl -N" in block.text:
            assert output.count("data: ") >= 3
            assert output.endswith("data: [DONE]\n\n")
            output = "".join(re.findall(r'"content":"([^"]*)"', output))
        if QUESTION in block.text:
            assert "capital" in output


def test_administration_as_the_readme_shows_it(administrator: tuple[Reader, str]) -> None:
    _, output = administrator
    assert "some phrase" in output
    assert "api_key.issue" in output


def test_commands_of_the_admin_guide_answer(administrator: tuple[Reader, str]) -> None:
    reader, _ = administrator
    output = "".join(reader.type(block) for block in blocks(ADMIN_GUIDE, "sh"))
    for told in ("team-a", "internal only", "inferflux_queue_depth", "policy.import"):
        assert told in output


@pytest.mark.parametrize("page", PROGRAMS, ids=name)
def test_python_answers(newcomer: Reader, page: Path) -> None:
    programs = blocks(page, "python")
    outputs = newcomer.python(programs)
    assert len(outputs) == len(programs) > 0
    for block, output in zip(programs, outputs, strict=True):
        check_python(block, output)


def check_python(block: Block, output: str) -> None:
    if "Last-Event-ID" in block.text:
        assert output == QUESTION
    elif "Idempotency-Key" in block.text:
        first, second = output.splitlines()
        assert first == second
        assert first.startswith("chatcmpl-")
    elif "client.delete" in block.text:
        assert output.startswith(("cancelled", "it had come to its end"))
    else:
        assert QUESTION in output


@pytest.mark.parametrize("block", blocks(USER_GUIDE, "js"), ids=lambda block: f"line {block.line}")
def test_javascript_answers(newcomer: Reader, block: Block) -> None:
    packages = node_modules(ROOT / "tests" / "support" / "openai_js")
    assert newcomer.javascript(block, packages).strip() == QUESTION


def test_programs_of_other_pages_are_looked_at_elsewhere() -> None:
    assert len(blocks(DEVELOPER_GUIDE, "python")) == 1
    assert not [block for page in (ADMIN_GUIDE, PRD) for block in (*blocks(page, "python"), *blocks(page, "js"))]
    assert not [block for page in (README, DEVELOPER_GUIDE) for block in blocks(page, "js")]


def test_the_guide_shows_a_journal(newcomer: Reader) -> None:
    (block,) = blocks(DEVELOPER_GUIDE, "python")
    line = f"curl -sD - http://{ADDRESS}/v1/completions -H 'Authorization: Bearer dev-key-123'"
    line += " -H 'Content-Type: application/json' -H 'Idempotency-Key: shown' -d '{\"prompt\": \"shown\"}'"
    match = re.search(r"^x-request-id: (\w+)", newcomer.run("bash", "-c", line), re.M | re.I)
    assert match is not None
    command = ("python", "-W", "error", "-c", block.text, str(newcomer.stack.data_dir), match[1])
    records = newcomer.run(*command).splitlines()
    assert [record.split()[1] for record in records[:2]] == ["head", "run"]
    assert "Finished" in records[-1]


def test_the_guides_paced_model_is_served(tmp_path: Path) -> None:
    (block,) = blocks(DEVELOPER_GUIDE, "yaml")
    config = tmp_path / "server.yaml"
    config.write_text(block.text)
    (planned,) = plan_models(load({}, {"--config": str(config)}))
    assert (planned.backend, planned.settings.sequences) == ("echo", 4)
