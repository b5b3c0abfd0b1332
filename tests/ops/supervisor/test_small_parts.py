"""Lock, run file, ports, output: the pieces `up` is made of."""

import errno
import io
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ops.errors import CannotStart
from ops.settings.loader import load
from ops.supervisor.leftovers import wait_for_leftovers
from ops.supervisor.lock import DataDirLock
from ops.supervisor.output import Output
from ops.supervisor.ports import choose_nats_port, require_http_port
from ops.supervisor.ready import ready_block
from ops.supervisor.run_file import (
    Running,
    RunningProcess,
    RunningWorker,
    read_run_file,
    remove_run_file,
    write_run_file,
)


def test_a_second_lock_names_the_holder(tmp_path: Path) -> None:
    first, second = DataDirLock(tmp_path / "data"), DataDirLock(tmp_path / "data")
    first.acquire()
    with pytest.raises(CannotStart, match=f"pid {os.getpid()}"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_data_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match="data directory"):
        DataDirLock(tmp_path / "file" / "data").acquire()


def test_the_run_file_has_the_form_others_rely_on(tmp_path: Path) -> None:
    workers = (RunningWorker(3, "w1-ab", "echo", "http://127.0.0.1:9101/metrics"),)
    running = Running(RunningProcess(1, "nats://127.0.0.1:4222"), RunningProcess(2, "http://localhost:8080"), workers)
    write_run_file(tmp_path, running)
    assert json.loads((tmp_path / "run.json").read_text()) == {
        "edge": {"pid": 2, "url": "http://localhost:8080"},
        "nats": {"pid": 1, "url": "nats://127.0.0.1:4222"},
        "workers": [{"pid": 3, "id": "w1-ab", "backend": "echo", "metrics": "http://127.0.0.1:9101/metrics"}],
    }
    assert read_run_file(tmp_path) == running
    remove_run_file(tmp_path)
    remove_run_file(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"nats": 3, "edge": null, "workers": []}'])
def test_a_spoiled_run_file_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    assert read_run_file(tmp_path) is None


def test_a_taken_port_is_refused_and_the_nats_default_moves_on() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(CannotStart, match=f"port {port} on localhost is taken"):
            require_http_port(load({}, {"--port": port}).server)
        with pytest.raises(CannotStart, match="--nats-port"):
            choose_nats_port(load({}, {"--nats-port": port}).nats)
    require_http_port(load({}, {"--port": "0"}).server)
    assert choose_nats_port(load({}, {"--nats-port": "0"}).nats) is None


def test_the_default_ports_are_treated_as_the_contract_says(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = {8080, 4222, 4223}
    monkeypatch.setattr("ops.supervisor.ports.is_free", lambda address, port: port not in taken)
    settings = load({}, {})
    with pytest.raises(CannotStart, match="try --port 8081"):
        require_http_port(settings.server)
    assert choose_nats_port(settings.nats) == 4224


def test_output_names_who_spoke() -> None:
    stream = io.StringIO()
    Output(stream, form="console").write("edge", "hello")
    assert stream.getvalue() == "edge | hello\n"


def test_json_output_stays_json_line_by_line() -> None:
    stream = io.StringIO()
    output = Output(stream, form="json")
    output.write("edge", '{"event": "x"}')
    output.write("edge", "Traceback: not JSON")
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"event": "x"},
        {"event": "Traceback: not JSON", "process": "edge"},
    ]


def test_output_that_cannot_be_written_ends_nothing() -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    Output(Full(), form="console").write("edge", "hello")


def test_the_ready_block_sums_slots_and_shows_no_secret() -> None:
    model = {"id": "m", "backend": "llama_cpp", "reason": "asked for", "slots": 8, "context": 2048, "threads": 2}
    block = ready_block(
        edge_url="http://localhost:8080",
        key="$INFERCTL_API_KEY",
        broker_url="nats://127.0.0.1:4222",
        workers=[{"models": [model]}, {"models": [model]}],
        unserved={"cut": "worker-3: cut.gguf does not load"},
    )
    assert "http://localhost:8080/v1" in block
    assert "docs     http://localhost:8080/docs\n" in block
    assert "m on llama_cpp (asked for)" in block
    assert "slots 16, context 2048, threads 2" in block
    assert "model    cut is not served: worker-3: cut.gguf does not load" in block
    assert '"Authorization: Bearer $INFERCTL_API_KEY"' in block


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_leftover_nats_server_is_waited_for(tmp_path: Path) -> None:
    config = str(tmp_path / "nats" / "server.conf")
    code = "import time; print('up', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, "-c", config]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as leftover:
        assert leftover.stdout is not None
        leftover.stdout.readline()  # before that the system may not show its arguments
        wait_for_leftovers(tmp_path)
        assert leftover.wait(60) == -signal.SIGTERM
