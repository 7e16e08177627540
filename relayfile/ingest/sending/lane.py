"""One workspace's way to the store: what waits, what is on its way, and how much of its spool is unread.

Rows are read in their order, once, but for what was left in them of single providers (they are paused, or were): that
is read again, behind a mark of its own for each provider, and beside everything else.

A lane has at most one sub-batch without an answer, so that order holds whatever happens to a batch: what is refused,
cut or asked for again goes back to the front. Owns order inside a workspace. Refuses to know nodes and streams.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from relayfile.ingest.sending.coalesce import Fold
from relayfile.ingest.sending.fold_wire import REF_BYTES
from relayfile.ingest.sending.parcel import Parcel
from relayfile.ingest.status.ages import PendingAge

FOLD_BYTES = 512
"""What a fold takes in memory beside its changes."""
NOTE_BYTES_GUESS = 256
"""What a change without its content is taken to cost on the wire, before it was encoded."""


class LeftRows:
    """Rows of the spool in which a provider's changes were left."""

    __slots__ = ("after", "to")

    def __init__(self, after: int, to: int) -> None:
        self.after = after
        """The rows up to this one have none."""
        self.to = to
        """The last one that has."""


class Pieces:
    """What is built parcel by parcel, each when its turn comes: all of it may be more than memory is for."""

    __slots__ = ("_parcels", "size_bytes")

    def __init__(self, parcels: Iterable[Parcel], size_bytes: int) -> None:
        """`size_bytes` is what the parcels are thought to have together."""
        self._parcels = iter(parcels)
        self.size_bytes = size_bytes

    def build(self) -> Parcel | None:
        """The next parcel; None when that was all."""
        parcel = next(self._parcels, None)
        self.size_bytes = 0 if parcel is None else max(0, self.size_bytes - parcel.size_bytes)
        return parcel


Waiting: TypeAlias = Parcel | Fold | Pieces


class Lane:
    """A workspace with changes that have no outcome yet."""

    __slots__ = (
        "_queue",
        "ages",
        "in_flight",
        "is_hungry",
        "is_queued",
        "last_row_id",
        "left_rows",
        "newest_row_id",
        "pending",
        "queued_bytes",
        "reported",
        "shard_id",
        "workspace_id",
    )

    def __init__(self, workspace_id: str, shard_id: int) -> None:
        self.workspace_id = workspace_id
        self.shard_id = shard_id
        self.in_flight = False
        """A sub-batch of it has no answer yet."""
        self.is_queued = False
        """It stands in its stream's queue of lanes that have something to send."""
        self.is_hungry = False
        """It stands in the backlog's queue of lanes to read for."""
        self.last_row_id = 0
        """Rows up to this one were read into memory."""
        self.newest_row_id = 0
        """The newest durable row of the workspace."""
        self.pending: dict[str, int] = {}
        """Provider to accepted changes without an outcome, unread ones included."""
        self.ages: dict[str, PendingAge] = {}
        """Provider to the age of the oldest of them."""
        self.left_rows: dict[str, LeftRows] = {}
        """Provider to the rows in which its changes were left; its arrivals must wait behind them."""
        self.reported: dict[str, int] = {}
        """What the store was told of `pending` last."""
        self.queued_bytes = 0
        self._queue: deque[Waiting] = deque()

    @property
    def has_unread(self) -> bool:
        """Whether the spool has rows of it that were not read; arrivals must then wait behind them."""
        return self.newest_row_id > self.last_row_id

    @property
    def has_queued(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._queue)

    def leave(self, provider: str, row_id: int) -> None:
        """The changes of a provider in this row are not in memory: they are to be read from the spool, in order."""
        waiting = self.left_rows.get(provider)
        if waiting is None:
            self.left_rows[provider] = LeftRows(row_id - 1, row_id)
        else:
            waiting.after = min(waiting.after, row_id - 1)
            waiting.to = max(waiting.to, row_id)

    def take_out(self, is_out: Callable[[str], bool]) -> list[Parcel | Fold]:
        """Remove what waits of these providers, but for what is being built piece by piece."""
        out: list[Parcel | Fold] = []
        kept: deque[Waiting] = deque()
        for item in self._queue:
            if isinstance(item, Pieces) or not is_out(_provider(item)):
                kept.append(item)
            else:
                out.append(item)
                self.queued_bytes -= _size(item)
        self._queue = kept
        return out

    def push(self, item: Waiting) -> int:
        """Queue behind everything; returns the bytes by which the queue grew."""
        size = _size(item)
        self._queue.append(item)
        self.queued_bytes += size
        return size

    def push_front(self, items: Sequence[Waiting]) -> int:
        """Queue ahead of everything, in this order; returns the bytes by which the queue grew."""
        size = sum(map(_size, items))
        self._queue.extendleft(reversed(items))
        self.queued_bytes += size
        return size

    def remove(self, parcel: Parcel) -> int:
        """Forget a parcel that was not taken; returns the bytes by which the queue shrank: 0 when it is not there.

        Callers give up in about the order in which they came, so that it is found near the front.
        """
        try:
            self._queue.remove(parcel)
        except ValueError:
            return 0
        self.queued_bytes -= parcel.size_bytes
        return parcel.size_bytes

    def take(self, bytes_max: int, changes_max: int, build: Callable[[Fold], Iterable[Parcel]]) -> list[Parcel]:
        """The next sub-batch: at least one parcel, and no more than the bounds unless that one is larger.

        A parcel whose body follows in chunks goes alone.
        """
        queue = self._queue
        taken: list[Parcel] = []
        size = changes = 0
        while queue:
            item = queue[0]
            if not isinstance(item, Parcel):
                self._build(item, build)
                continue
            size += item.size_bytes
            changes += len(item.refs) // REF_BYTES
            if taken and (size > bytes_max or changes > changes_max or item.body):
                break
            queue.popleft()
            self.queued_bytes -= item.size_bytes
            taken.append(item)
            if item.body:
                break
        return taken

    def accepted(self, provider: str, count: int, received_us: int) -> None:
        """`count` more changes of a provider are durable, the first of them received then."""
        self.pending[provider] = self.pending.get(provider, 0) + count
        age = self.ages.get(provider)
        if age is None:
            age = self.ages[provider] = PendingAge()
        age.accepted(count, received_us)

    def _build(self, first: Fold | Pieces, build: Callable[[Fold], Iterable[Parcel]]) -> None:
        """Make the first parcel of what is first in the queue."""
        self._queue.popleft()
        self.queued_bytes -= _size(first)
        pieces = Pieces(build(first), _size(first)) if isinstance(first, Fold) else first
        parcel = pieces.build()
        if parcel is not None:
            self.push_front([parcel, pieces])

    def settled(self, provider: str, count: int) -> None:
        """`count` changes of a provider have their outcome."""
        left = self.pending.get(provider, 0) - count
        assert left >= 0, f"{self.workspace_id}: more outcomes than changes of {provider}"
        self.pending[provider] = left
        self.ages[provider].settled(count)


def _provider(item: Parcel | Fold) -> str:
    return item.key.provider if isinstance(item, Fold) else item.provider


def _size(item: Waiting) -> int:
    if isinstance(item, Fold):
        return item.content_bytes + item.count * NOTE_BYTES_GUESS + FOLD_BYTES
    return item.size_bytes
