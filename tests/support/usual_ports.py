"""One `relayfile up` at a time looks for ports on this machine, whichever test run starts it.

It takes the usual ports where they are free, and lets go of them before its processes bind them: two that look at the
same moment choose the same. Once one runs, the next sees what is taken and takes others.
"""

import tempfile
from pathlib import Path

from filelock import AsyncFileLock

WAIT_S = 40


def choosing_ports() -> AsyncFileLock:
    """To be held from before `up` starts until it has greeted; `filelock.Timeout` after `WAIT_S`."""
    return AsyncFileLock(Path(tempfile.gettempdir()) / "relayfile-tests-usual-ports.lock", timeout=WAIT_S)
