"""What the engine remembers of its file between transactions, and how apsw's errors become ours."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import apsw

from relayfile.errors import DataCorrupted, StartRefused, StorageFailed, Unavailable
from relayfile.store.sqlite.expiry import PERIOD_TABLES, START
from relayfile.store.sqlite.periods import SLOTS, slot_of

RETRY_AFTER_S = 1.0


@dataclass(slots=True)
class WriterState:
    """Counters of one open file."""

    content_ids: "count[int]"
    """Numbers for new contents, and for changes of operations."""
    filled_slots: set[int]
    """Period slots that have rows."""
    shard_ids: tuple[int, ...] = ()
    """The shards that this node acquired."""
    commit_count: int = 0
    wal_bytes: int = 0
    failure: str = ""
    """Set once the disk failed: nothing is written any more."""
    events_swept_to: tuple[int, str] = START
    """The workspace up to which old events were looked for."""

    @classmethod
    def read(cls, connection: apsw.Connection) -> "WriterState":
        """Of a file that was just opened."""
        newest = connection.execute("SELECT coalesce(max(content_id), 0) FROM content").get
        garbage = connection.execute("SELECT coalesce(max(content_id), 0) FROM content_garbage").get
        change = connection.execute("SELECT coalesce(max(change_number), 0) FROM operation").get
        filled = {
            slot
            for slot in range(SLOTS)
            for table in PERIOD_TABLES
            if connection.execute(f"SELECT 1 FROM {table}_{slot} LIMIT 1").fetchone()
        }
        return cls(content_ids=count(max(newest, garbage, change) + 1), filled_slots=filled)

    def slots_newest_first(self, now_us: int) -> tuple[int, ...]:
        """Where a known delivery may be."""
        newest = slot_of(now_us)
        return tuple(slot for back in range(SLOTS) if (slot := (newest - back) % SLOTS) in self.filled_slots)


@contextmanager
def start_errors_as_ours(path: Path) -> Iterator[None]:
    """A start writes (the epochs of its shards fence what came before it), so that a full disk refuses it."""
    try:
        yield
    except apsw.FullError:
        raise _refused(path, "the disk is full") from None
    except apsw.IOError as error:
        # What a full disk answers for the index of the log. The stubs leave out what apsw sets.
        if getattr(error, "extendedresult", 0) != apsw.SQLITE_IOERR_SHMSIZE:
            raise
        raise _refused(path, f"the disk is full, or fails ({error})") from error
    except Unavailable as error:
        raise _refused(path, error.what) from error


def _refused(path: Path, why: str) -> StartRefused:
    return StartRefused(
        why=f"{path} cannot be written ({why}), and a start must write to it; make room for a few MiB and start again"
    )


@contextmanager
def errors_as_ours(fail: Callable[[str], StorageFailed]) -> Iterator[None]:
    """Full disk: try again later. Damage and failing disk: the end, by `fail`. The rest are our own faults and pass."""
    try:
        yield
    except apsw.FullError:
        raise Unavailable(what="disk of this node (it is full)", retry_after_s=RETRY_AFTER_S) from None
    except apsw.BusyError:
        raise Unavailable(what="database file of this node (it is locked)", retry_after_s=RETRY_AFTER_S) from None
    except (apsw.CorruptError, apsw.NotADBError) as error:
        fail(str(error))
        raise DataCorrupted(what=str(error)) from error
    except (apsw.IOError, apsw.CantOpenError, apsw.NoLFSError) as error:
        raise fail(str(error)) from error


@contextmanager
def read_errors_as_ours(fail: Callable[[str], StorageFailed]) -> Iterator[None]:
    """As `errors_as_ours`. What a read cannot open, for want of descriptors say, the next one may: not the end."""
    with errors_as_ours(fail):
        try:
            yield
        except apsw.CantOpenError as error:
            raise Unavailable(what=f"database file of this node ({error})", retry_after_s=RETRY_AFTER_S) from error
