"""Processor time of other processes, for the servers' share of the machine."""

import os
from collections.abc import Mapping
from pathlib import Path


def cpu_seconds(processes: Mapping[str, int]) -> dict[str, float]:
    """User and system time so far, by the given names. Leaves out what the system does not tell of."""
    seconds = {name: _cpu_seconds(pid) for name, pid in processes.items()}
    return {name: value for name, value in seconds.items() if value is not None}


def _cpu_seconds(pid: int) -> float | None:
    try:
        # The name, in brackets, may hold blanks: fields are counted from its end (proc_pid_stat(5): 14 and 15).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
