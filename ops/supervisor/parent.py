"""A child of `up` ends when `up` does, even when that is killed with SIGKILL."""

import ctypes
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
POLL_EVERY_S = 0.5


def die_with_parent(parent: int) -> None:
    """Called first thing by a child: from here on it does not outlive the process `parent`.

    On Linux the kernel sees to it; elsewhere a thread looks. The parent may have ended before the call: then so do we.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_EVERY_S)
    os._exit(1)
