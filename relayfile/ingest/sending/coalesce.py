"""Which changes go out now, which are held, and what a flush contains (D5). Pure: time is an argument.

The first change of a quiet object goes out at once and opens a window; further changes of that object inside the window
are held, and leave together as one fold when the window closes. A window never slides: an object that changes all the
time is flushed once for each window. With `leading=False` the first change is held too.

Owns windows, folds, their bounds, and which contents of a fold are superfluous. Holds a few dozen bytes for a change,
never its content: a change is known by where it lies in the spool. Refuses to read, send or wait.

Folding reorders the changes of different objects, which matters only where objects contend for a path: who takes it,
and who leaves it. Objects that named the same path in their windows are rivals: before a change of one goes anywhere,
what the others hold leaves.

Every bound ends in an earlier flush, never in a refusal or in unbounded memory: a full fold leaves in the middle of its
window, and when there are too many objects or changes the window that would close next closes now.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from relayfile.model import MemberKind
from relayfile.watermark import Stamp, stamp, wins_over

_RECORD = struct.Struct("<qIIIIBqqI")
_NO_TIME = -(1 << 63)
_NOWHERE = -1
NOTE_OVERHEAD_BYTES = 48
"""What a note takes in memory beside its bytes."""
_KINDS = {kind.value: kind for kind in MemberKind}
_FULL = (MemberKind.UPSERT, MemberKind.DELETE)


class ObjectKey(NamedTuple):
    """What is folded: the changes of one object."""

    workspace_id: str
    provider: str
    change_key: str


class Change(NamedTuple):
    """The compact facts of one change. The first five say where it lies; the reducer only passes them on."""

    row_id: int
    ordinal: int
    """Its place among the changes of the spool row."""
    offset: int
    """Where its envelope starts in the row's payload, in bytes."""
    length: int
    change_index: int
    """Its place in its envelope."""
    kind: MemberKind
    occurred_us: int | None
    received_us: int
    size_bytes: int
    """Length of its content or patch document."""


class FoldMember(NamedTuple):
    """A change that leaves in a fold."""

    change: Change
    note: bytes | None
    """What was given with the change, untouched."""
    elided: bool
    """Another member of this fold wins over it, so that its content need not travel."""


@dataclass(frozen=True, slots=True)
class CoalesceLimits:
    """Bounds of the reducer. All are at least 1, but for the window: 0 sends everything at once."""

    window_s: float
    leading: bool
    objects_max: int
    """Objects with an open window."""
    members_max: int
    """Held changes of all objects."""
    fold_members_max: int
    fold_bytes_max: int
    """Content that a fold would send."""


class Fold:
    """Changes of one object in the order in which they arrived: at least one, once it has left the reducer."""

    __slots__ = (
        "_notes",
        "_records",
        "_winner",
        "_winner_received",
        "content_bytes",
        "count",
        "key",
        "note_bytes",
    )

    def __init__(self, key: ObjectKey) -> None:
        self.key = key
        self.count = 0
        self.content_bytes = 0
        """Upper bound of the content that is not elided."""
        self.note_bytes = 0
        self._records = bytearray()
        self._notes: list[bytes | None] | None = None
        """As far as the last member that has one: most have none when there are many."""
        # Places of the newest full change of each clock; places and not stamps, because there are many folds.
        self._winner = _NOWHERE
        self._winner_received = _NOWHERE

    def add(self, change: Change, note: bytes | None) -> None:
        """Hold one more change."""
        row_id, ordinal, offset, length, index, kind, occurred_us, received_us, size = change
        occurred = _NO_TIME if occurred_us is None else occurred_us
        self._records += _RECORD.pack(row_id, ordinal, offset, length, index, kind, occurred, received_us, size)
        if note is not None:
            if self._notes is None:
                self._notes = []
            self._notes += [None] * (self.count - len(self._notes))
            self._notes.append(note)
            self.note_bytes += len(note) + NOTE_OVERHEAD_BYTES
        mine = stamp(kind, occurred_us, received_us)
        by_receipt = mine.provider_us is None
        place = self._winner_received if by_receipt else self._winner
        winner, winner_bytes = self._stamp_at(place) if place != _NOWHERE else (None, 0)
        if winner is None or not wins_over(winner, mine, winner_is_later=False):
            self.content_bytes += size
            if kind in _FULL:
                self.content_bytes -= winner_bytes
                if by_receipt:
                    self._winner_received = self.count
                else:
                    self._winner = self.count
        self.count += 1

    def members(self) -> Iterator[FoldMember]:
        """Its changes in order, each with the verdict on its content."""
        winner = self._stamp_at(self._winner)[0] if self._winner != _NOWHERE else None
        received = self._stamp_at(self._winner_received)[0] if self._winner_received != _NOWHERE else None
        notes = self._notes or ()
        for place, record in enumerate(_RECORD.iter_unpack(self._records)):
            note = notes[place] if place < len(notes) else None
            row_id, ordinal, offset, length, index, number, occurred, received_us, size = record
            kind = _KINDS[number]
            occurred_us = None if occurred == _NO_TIME else occurred
            change = Change(row_id, ordinal, offset, length, index, kind, occurred_us, received_us, size)
            mine = stamp(kind, occurred_us, received_us)
            best, best_place = (received, self._winner_received) if mine.provider_us is None else (winner, self._winner)
            elided = (
                best is not None and best_place != place and wins_over(best, mine, winner_is_later=best_place > place)
            )
            yield FoldMember(change, note, elided)

    def _stamp_at(self, place: int) -> tuple[Stamp, int]:
        """Stamp and content length of the change at a place."""
        *_, number, occurred, received_us, size = _RECORD.unpack_from(self._records, place * _RECORD.size)
        return stamp(_KINDS[number], None if occurred == _NO_TIME else occurred, received_us), size


class Window:
    """The time in which further changes of an object are held."""

    __slots__ = ("directory", "end_s", "fold", "is_closed", "key", "other_places", "place", "rivals")

    def __init__(self, key: ObjectKey, end_s: float) -> None:
        self.key = key
        self.end_s = end_s
        self.is_closed = False
        """Before its time: it stands in the queue of those that close until then."""
        self.fold: Fold | None = None
        self.place = 0
        """Where its first change with a path is; nearly every object stays there. See `Places`."""
        self.directory: _Directory | None = None
        """In which `place` is."""
        self.other_places: dict[int, _Directory] | None = None
        self.rivals: set[Window] | None = None
        """Windows of objects that named one of its paths; at most one of all rivals holds anything."""


class _Directory:
    """Where paths that windows named are."""

    __slots__ = ("above", "count", "place")

    def __init__(self, place: int, above: tuple[int, ...]) -> None:
        self.place = place
        self.above = above
        """It and the directories above it, without the root."""
        self.count = 0
        """Paths in it that windows named."""


class Places:
    """Which windows named which path. A path is known by its hash: a collision costs an early flush and no more."""

    def __init__(self) -> None:
        self._windows: dict[int, Window | tuple[Window, ...]] = {}
        """One window as it is: nearly every path is named by one object alone, and there are many."""
        self._directories: dict[int, _Directory] = {}
        self._directories_below: dict[int, int] = {}
        """Of each directory above a named path, itself included: how many of `_directories` are in it."""
        self._overlaps: set[int] = set()
        """Directories above named paths that are named themselves; nearly always none."""

    def touch(self, window: Window, path: str) -> bool:
        """The object of `window` names `path`. True: other objects named paths below it, as if it were a directory."""
        workspace_id = window.key.workspace_id
        place = hash((workspace_id, path))
        if place == window.place or (window.other_places is not None and place in window.other_places):
            return False
        parent = path[: path.rfind("/")]
        directory = self._directories.get(hash((workspace_id, parent)))
        if directory is None:
            directory = self._add_directory(workspace_id, parent)
        directory.count += 1
        if not window.place:
            window.place, window.directory = place, directory
        elif window.other_places is None:
            window.other_places = {place: directory}
        else:
            window.other_places[place] = directory
        windows = self._windows
        if place in windows:
            there = self._named_at(place)
            windows[place] = (*there, window)
            self._meet(window, there)
        else:
            windows[place] = window
        if self._overlaps:
            for above in self._overlaps.intersection(directory.above):
                self._meet(window, self._named_at(above))
        if place in self._directories_below:
            self._overlaps.add(place)
            return True
        return False

    def forget(self, window: Window) -> None:
        """The window has closed."""
        if window.directory is not None:
            self._leave(window, window.place, window.directory)
            if window.other_places is not None:
                for place, directory in window.other_places.items():
                    self._leave(window, place, directory)
        if window.rivals is not None:
            for rival in window.rivals:
                _rivals_of(rival).discard(window)

    def _named_at(self, place: int) -> "tuple[Window, ...]":
        return self._listed(self._windows[place])

    @staticmethod
    def _listed(there: "Window | tuple[Window, ...]") -> "tuple[Window, ...]":
        return (there,) if isinstance(there, Window) else there

    @staticmethod
    def _meet(window: Window, others: "tuple[Window, ...]") -> None:
        for other in others:
            if other is not window:
                _rivals_of(other).add(window)
                _rivals_of(window).add(other)

    def _add_directory(self, workspace_id: str, path: str) -> _Directory:
        place = hash((workspace_id, path))
        above = []
        while path:
            above.append(hash((workspace_id, path)))
            path = path[: path.rfind("/")]
        for each in above:
            self._directories_below[each] = self._directories_below.get(each, 0) + 1
            if each in self._windows:
                self._overlaps.add(each)
        made = self._directories[place] = _Directory(place, tuple(above))
        return made

    def _leave(self, window: Window, place: int, directory: _Directory) -> None:
        there = self._windows.pop(place)
        if there is window:
            self._overlaps.discard(place)
        else:
            left = tuple([other for other in self._listed(there) if other is not window])
            self._windows[place] = left[0] if len(left) == 1 else left
        directory.count -= 1
        if directory.count:
            return
        del self._directories[directory.place]
        for each in directory.above:
            self._directories_below[each] -= 1
            if not self._directories_below[each]:
                del self._directories_below[each]
                self._overlaps.discard(each)


def _rivals_of(window: Window) -> "set[Window]":
    if window.rivals is None:
        window.rivals = set()
    return window.rivals


class Coalescer:
    """The reducer. One for a process; not thread-safe. `now_s` is a monotonic clock's and never goes back."""

    def __init__(self, limits: CoalesceLimits) -> None:
        self._limits = limits
        self._windows: dict[str, dict[ObjectKey, Window]] = {}
        """By workspace."""
        self.objects = 0
        """Objects with an open window."""
        self._places = Places()
        # All windows are equally long, so that those opened first close first.
        self._closing: deque[Window] = deque()
        self._flushed: list[Fold] = []
        self._is_closed = False
        self.members_held = 0
        """Changes that are held, without those that wait to be taken."""
        self.held_total = 0
        """Changes that were held since the start."""

    def offer(self, key: ObjectKey, path: str, now_s: float) -> Window | None:
        """None: this change goes out now. Else the window that must `hold` it, before anything else.

        Take what `take_flushed` has before sending it: there may be earlier changes of the same object, or of a rival.
        """
        if self._limits.window_s <= 0 or self._is_closed:
            return None
        if self._closing and self._closing[0].end_s <= now_s:
            self.expire(now_s)
        there = self._windows.get(key.workspace_id)
        window = None if there is None else there.get(key)
        goes_out = window is None and self._limits.leading
        if window is None:
            window = self._open(key, now_s)
        if path and self._places.touch(window, path):
            self._close_others(window)
        if window.rivals:
            for rival in window.rivals:
                self._flush(rival)
        return None if goes_out else window

    def hold(self, window: Window, change: Change, note: bytes | None) -> None:
        """Keep a change until its window closes. `note` leaves with it, untouched."""
        limits = self._limits
        fold = window.fold
        if fold is not None and fold.content_bytes + change.size_bytes > limits.fold_bytes_max:
            self._flush(window)
            fold = None
        if fold is None:
            fold = window.fold = Fold(window.key)
        fold.add(change, note)
        self.members_held += 1
        self.held_total += 1
        if fold.count >= limits.fold_members_max:
            self._flush(window)
        while self.members_held > limits.members_max:
            self._close_next()

    def expire(self, now_s: float) -> None:
        """Close every window whose time has come; what they held waits in `take_flushed`."""
        while self._closing and self._closing[0].end_s <= now_s:
            window = self._closing.popleft()
            if window.is_closed:
                continue
            if self._flush(window) and self._limits.leading:
                window.end_s = now_s + self._limits.window_s
                self._closing.append(window)
            else:
                self._forget(window)

    def close(self, is_meant: Callable[[ObjectKey], bool]) -> None:
        """Close the windows of these objects now. Looks at every window."""
        staying: deque[Window] = deque()
        for window in self._closing:
            if is_meant(window.key):
                self._forget(window)
                self._flush(window)
            else:
                staying.append(window)
        self._closing = staying

    def close_all(self) -> None:
        """Close every window now and open none any more, as a process does that is about to stop."""
        self._is_closed = True
        while self._closing:
            self._close_next()

    def next_end_s(self) -> float | None:
        """When the next window closes; None while nothing is open."""
        return self._closing[0].end_s if self._closing else None

    def take_flushed(self) -> list[Fold]:
        """The folds that left since the last call, in order; the caller owns them."""
        flushed, self._flushed = self._flushed, []
        return flushed

    @property
    def has_flushed(self) -> bool:
        """Whether `take_flushed` has anything."""
        return bool(self._flushed)

    def _open(self, key: ObjectKey, now_s: float) -> Window:
        while self.objects >= self._limits.objects_max:
            self._close_next()
        window = Window(key, now_s + self._limits.window_s)
        there = self._windows.get(key.workspace_id)
        if there is None:
            there = self._windows[key.workspace_id] = {}
        there[key] = window
        self.objects += 1
        self._closing.append(window)
        return window

    def _close_next(self) -> None:
        window = self._closing.popleft()
        if not window.is_closed:
            self._forget(window)
            self._flush(window)

    def _close_others(self, window: Window) -> None:
        """A file is where others have a directory: rare, and who of them is below it is not known.

        They open windows again with their next changes, and are its rivals then.
        """
        for other in list(self._windows[window.key.workspace_id].values()):
            if other is not window:
                self._forget(other)
                self._flush(other)

    def _forget(self, window: Window) -> None:
        window.is_closed = True
        there = self._windows[window.key.workspace_id]
        del there[window.key]
        if not there:
            del self._windows[window.key.workspace_id]
        self.objects -= 1
        self._places.forget(window)

    def _flush(self, window: Window) -> bool:
        fold, window.fold = window.fold, None
        if fold is None:
            return False
        self.members_held -= fold.count
        self._flushed.append(fold)
        return True
