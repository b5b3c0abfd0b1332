"""How long this process waits for processors, which others have: figures taken meanwhile are about them, too."""

from pathlib import Path
from typing import NamedTuple

_TASKS = Path("/proc/self/task")

# Of its time, a process waits for processors far less than this on a machine with nothing else to do.
MAX_WAITED = 0.2


class RunTime(NamedTuple):
    """Nanoseconds of all threads: computing, and waiting for a processor although there was something to compute."""

    ran: int
    waited: int

    def since(self, before: "RunTime") -> "RunTime":
        return RunTime(self.ran - before.ran, self.waited - before.waited)

    def plus(self, other: "RunTime") -> "RunTime":
        return RunTime(self.ran + other.ran, self.waited + other.waited)

    @property
    def share_waited(self) -> float:
        total = self.ran + self.waited
        return min(1.0, max(0.0, self.waited / total)) if total > 0 else 0.0


def run_time(tasks: Path = _TASKS) -> RunTime:
    """Zeros where the system does not tell."""
    ran = waited = 0
    for path in tasks.glob("*/schedstat"):
        try:
            of_thread = path.read_text().split()
            ran, waited = ran + int(of_thread[0]), waited + int(of_thread[1])
        except (OSError, ValueError, IndexError):
            continue  # a thread that has just ended
    return RunTime(ran, waited)
