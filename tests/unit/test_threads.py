import sys
import threading
from pathlib import Path

import pytest

from relayfile import threads
from relayfile.threads import started_threads


def _of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(name)]


def test_all_threads_run_from_the_start_and_no_more_after_work() -> None:
    with started_threads(3, "pool-of-three") as pool:
        begun = {thread.ident for thread in _of("pool-of-three")}
        assert len(begun) == 3
        assert list(pool.map(str, range(50))) == [str(number) for number in range(50)]
        assert {thread.ident for thread in _of("pool-of-three")} == begun
    assert not _of("pool-of-three")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_system_shows_the_name() -> None:
    with started_threads(2, "a-name-that-is-long") as pool:
        shown = Path(f"/proc/self/task/{pool.submit(threading.get_native_id).result()}/comm")
        assert shown.read_text() == "a-name-that-is-\n"


def test_where_no_thread_is_left_none_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def only_one(thread: threading.Thread) -> None:
        if _of("starved"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", only_one)
    with pytest.raises(RuntimeError, match="new thread"):
        started_threads(2, "starved")
    assert not _of("starved")


def test_threads_that_never_run_are_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "START_TIMEOUT_S", 0.0)
    with pytest.raises(threading.BrokenBarrierError):
        started_threads(2, "late")
    assert not _of("late")
