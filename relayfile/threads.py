"""Pools of threads that all run from the start, under names that the system shows too.

A pool of the standard library starts a thread when work first waits for one: how many a process has then says what it
has met so far, and a slow leak of threads looks the same. Owns starting and naming. Refuses to know what the work is.
"""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

SHOWN_CHARS_MAX: Final = 15
"""Of a name, by the Linux kernel."""
START_TIMEOUT_S: Final = 30.0


def started_threads(count: int, name: str) -> ThreadPoolExecutor:
    """A pool of `count` threads, all running on return; blocks for the fraction of a millisecond that each takes.

    `RuntimeError` where the system has no thread left to give, with none of them left behind.
    """
    pool = ThreadPoolExecutor(count, name, initializer=_show, initargs=(name,))
    all_run = threading.Barrier(count + 1, timeout=START_TIMEOUT_S)
    try:
        for _ in range(count):
            pool.submit(all_run.wait)
        all_run.wait()
    except BaseException:
        all_run.abort()
        pool.shutdown()
        raise
    return pool


def _show(name: str) -> None:
    """In the new thread: what `ps` and `top` show instead of the interpreter's name, where the system keeps one."""
    with contextlib.suppress(OSError):
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name[:SHOWN_CHARS_MAX])
