"""Memory of other processes."""

import os
from pathlib import Path

from ops.bench.errors import ArmFailed


def resident_bytes(pid: int) -> int:
    """What of a process lies in memory. Raises ArmFailed where the system does not tell, or the process is gone."""
    try:
        # proc_pid_statm(5): the second field, in pages.
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError as error:
        raise ArmFailed(f"the memory of process {pid} is not known here: {error.strerror}") from None
    return pages * os.sysconf("SC_PAGE_SIZE")
