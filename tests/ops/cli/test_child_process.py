import json
from pathlib import Path

import click
from click.testing import CliRunner

from ops.cli.child_process import child_options, tell_ready


@click.command()
@child_options
def serve(ready_file: Path | None) -> None:
    click.echo(ready_file is not None and ready_file.exists())
    tell_ready(ready_file, {"id": "w1"})


def test_a_ready_file_of_an_earlier_process_says_nothing_of_this_one(tmp_path: Path) -> None:
    ready_file = tmp_path / "ready.json"
    for _ in range(2):
        result = CliRunner().invoke(serve, ["--ready-file", str(ready_file)])
        assert (result.output, result.exit_code) == ("False\n", 0)
        assert json.loads(ready_file.read_text()) == {"id": "w1"}


def test_nobody_waits_without_one() -> None:
    assert CliRunner().invoke(serve, []).exit_code == 0
