"""A terminal that is closed is told from a signal that somebody sends."""

import os
import subprocess
import sys
from pathlib import Path

# The child is the first process of a terminal that the parent closes.
SCRIPT = """
import os, pty, signal, sys
from ops.supervisor.terminal import Terminal
pid, master = pty.fork()
if pid:
    os.read(master, 1)
    os.kill(pid, signal.SIGHUP)
    os.read(master, 1)
    os.close(master)
    os.waitpid(pid, 0)
else:
    terminal, seen = Terminal(), []
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    for _ in range(2):
        os.write(1, b".")
        signal.sigwait([signal.SIGHUP])
        seen.append(terminal.is_gone())
    open(sys.argv[1], "w").write(str(seen))
"""


def test_a_closed_terminal_is_gone_and_a_signal_closes_none(tmp_path: Path) -> None:
    result = tmp_path / "result"
    command = [sys.executable, "-c", SCRIPT, str(result)]
    subprocess.run(command, check=True, timeout=60, cwd=os.getcwd(), stdin=subprocess.DEVNULL)
    assert result.read_text() == "[False, True]"


def test_without_a_terminal_none_is_missed() -> None:
    script = "from ops.supervisor.terminal import Terminal; print(Terminal().is_gone())"
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, start_new_session=True, timeout=60, check=True
    )
    assert answer.stdout.strip() == "False"
