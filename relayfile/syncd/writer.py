"""The one thread of the process that writes mirrored files (measured: more only fight over the interpreter lock).

Owns the thread, and a second one that only waits for the disk. Work is handed over in batches, done in order, and never
abandoned: a caller that is cancelled leaves only when its batch has ended, because the batch uses the caller's
descriptors.
"""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from relayfile.threads import started_threads

P = ParamSpec("P")
T = TypeVar("T")


class Writer:
    """A queue of batches in front of one thread. Its length is bounded by the callers, who wait for their own."""

    def __init__(self) -> None:
        self._pool = started_threads(1, "mirror-writer")
        self.waiting = 0
        """Batches that are queued or being written."""
        self._beside = started_threads(1, "mirror-write-back")

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Queue a batch. The result must be awaited with ``finished``, also after a failure."""
        self.waiting += 1
        batch = asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))
        batch.add_done_callback(self._ended)
        return batch

    def _ended(self, _batch: asyncio.Future[T]) -> None:
        self.waiting -= 1

    def beside(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Queue a wait of the kernel that batches need not wait for. As ``submit``, in the second thread."""
        return asyncio.get_running_loop().run_in_executor(self._beside, lambda: work(*args, **kwargs))

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Queue a batch and wait for it."""
        return await finished(self.submit(work, *args, **kwargs))

    def close(self) -> None:
        """End the threads after what is queued."""
        self._pool.shutdown(wait=True)
        self._beside.shutdown(wait=True)


async def finished(future: asyncio.Future[T]) -> T:
    """The result of a batch; when the caller is cancelled, only after the batch has ended."""
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            try:
                await asyncio.wait((future,))
            except asyncio.CancelledError:
                continue  # one request to stop is as good as two
        raise
