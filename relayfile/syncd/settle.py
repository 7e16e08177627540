"""When a local change has settled: events in, places to look at out. Pure; the time is an argument, in seconds.

A file is told 5 ms after it was closed or renamed, 100 ms after the last sign that somebody still writes it (or after
it was removed: editors save by removing and making anew), and at the latest 5 s after the first sign. A rename inside
the tree is told as one. What came and went is told, too: a scan may have met it meanwhile, and somebody knows of it.
Bounded: too many places become a gap.
"""

from typing import Final, NamedTuple

from relayfile.syncd.local_changes import CHANGES_MAX, LocalChanges

CLOSED_S: Final = 0.005
WRITING_S: Final = 0.1
WAIT_MAX_S: Final = 5.0
"""A file that is written all the time is told this long after its first write."""
PLACES_MAX: Final = 50_000
"""Places that may wait; one more, and all of them become a gap."""
DIRECTORIES_MAX: Final = 100


class _Waiting(NamedTuple):
    due: float
    first: float
    """When it was first seen."""
    made: bool
    """It was not there before."""


class Settling:
    """What happened and is not yet told."""

    def __init__(self, places_max: int = PLACES_MAX) -> None:
        self._places_max = places_max
        # Each in the order in which they are due: what is told later is put behind.
        self._closed: dict[str, _Waiting] = {}
        self._open: dict[str, _Waiting] = {}
        self._moves: dict[str, tuple[str, float]] = {}
        """Where a file is now, to (where it was when last told, when that is due)."""
        self._directories: dict[str, float] = {}
        self._refused: dict[str, float] = {}
        self._gap_at: float | None = None

    @property
    def next_at(self) -> float | None:
        """When something is due next; None when nothing waits."""
        heads = [next(iter(waiting.values())).due for waiting in (self._closed, self._open) if waiting]
        heads += [due for _, due in self._moves.values()][:1]
        heads += [*self._directories.values()]
        heads += [*self._refused.values()][:1]
        if self._gap_at is not None:
            heads.append(self._gap_at)
        return min(heads, default=None)

    # --- what happened ----------------------------------------------------------------------------------------------

    def made(self, path: str, now: float) -> None:
        """It is there and was not before."""
        self._wait(path, now, WRITING_S, made=path not in self._moves)

    def wrote(self, path: str, now: float) -> None:
        """It was written to, and may be written further."""
        self._wait(path, now, WRITING_S)

    def closed(self, path: str, now: float) -> None:
        """It is whole: closed after writing, or renamed to here from where nobody knew it."""
        self._wait(path, now, CLOSED_S)

    def removed(self, path: str, now: float) -> None:
        """Nothing has the name any more."""
        moved = self._moves.pop(path, None)
        if moved is not None:
            self._wait(moved[0], now, WRITING_S)
        self._wait(path, now, WRITING_S)

    def moved(self, source: str, target: str, now: float) -> None:
        """A regular file was renamed inside the tree."""
        replaced = self._moves.pop(target, None)
        if replaced is not None:
            self._wait(replaced[0], now, WRITING_S)
        changed = self._forget(source)
        earlier = self._moves.pop(source, None)
        if changed is not None and changed.made and earlier is None:
            self._wait(source, now, WRITING_S)
            self._wait(target, now, CLOSED_S)  # written aside and put in its place
            return
        if earlier is not None:
            self._wait(source, now, WRITING_S)
        origin = source if earlier is None else earlier[0]
        if changed is not None or origin == target:
            self._wait(target, now, CLOSED_S)
        if origin != target:
            self._moves[target] = (origin, now + CLOSED_S)
            self._bound(now)

    def renamed(self, source: str, target: str, now: float) -> None:
        """A directory was renamed inside the tree: a scan of both places tells the moves of its files."""
        below = source + "/"
        for path in [path for waiting in (self._closed, self._open) for path in waiting if path.startswith(below)]:
            self._forget(path)
        for path in [path for path in self._moves if path.startswith(below)]:
            self._wait(self._moves.pop(path)[0], now, WRITING_S)
        self.scan(source, now)
        self.scan(target, now)

    def scan(self, directory: str, now: float) -> None:
        """Anything may have happened below ``directory``; empty: anywhere."""
        if not directory or (len(self._directories) >= DIRECTORIES_MAX and directory not in self._directories):
            self.lost(now)
        elif self._gap_at is None:
            self._directories[directory] = now + CLOSED_S

    def lost(self, now: float) -> None:
        """Anything may have happened anywhere: what is known of single files says nothing beside that."""
        for waiting in (self._closed, self._open, self._moves, self._directories, self._refused):
            waiting.clear()
        self._gap_at = now + CLOSED_S

    def refused(self, name: str, now: float) -> None:
        """A name that no workspace can hold came or went."""
        self._refused.setdefault(name, now + CLOSED_S)
        self._bound(now)

    # --- what has settled -------------------------------------------------------------------------------------------

    def take(self, now: float) -> LocalChanges:
        """What is due, at most ``CHANGES_MAX`` paths; empty when nothing is."""
        gap = self._gap_at is not None and self._gap_at <= now
        if gap:
            self._gap_at = None
        directories = [path for path, due in self._directories.items() if due <= now]
        for path in directories:
            del self._directories[path]
        moves: list[tuple[str, str]] = []
        for path, (origin, due) in self._moves.items():
            if due > now or 2 * len(moves) >= CHANGES_MAX:
                break
            moves.append((origin, path))
        for _, path in moves:
            del self._moves[path]
        paths = _due(self._closed, now, CHANGES_MAX - 2 * len(moves))
        paths += _due(self._open, now, CHANGES_MAX - 2 * len(moves) - len(paths))
        refused = [name for name, due in self._refused.items() if due <= now][:CHANGES_MAX]
        for name in refused:
            del self._refused[name]
        return LocalChanges(tuple(sorted(paths)), tuple(moves), gap, _topmost(directories), tuple(sorted(refused)))

    # --- inside -----------------------------------------------------------------------------------------------------

    def _wait(self, path: str, now: float, delay_s: float, *, made: bool = False) -> None:
        earlier = self._closed.get(path) or self._open.get(path)
        if earlier is not None:
            if now + delay_s >= earlier.first + WAIT_MAX_S:
                return  # it has waited long enough: its place stays
            self._forget(path)
        first, made = (now, made) if earlier is None else (earlier.first, earlier.made)
        (self._closed if delay_s == CLOSED_S else self._open)[path] = _Waiting(now + delay_s, first, made)
        self._bound(now)

    def _forget(self, path: str) -> _Waiting | None:
        return self._closed.pop(path, None) or self._open.pop(path, None)

    def _bound(self, now: float) -> None:
        if len(self._closed) + len(self._open) + len(self._moves) + len(self._refused) > self._places_max:
            self.lost(now)


def _due(waiting: dict[str, _Waiting], now: float, limit: int) -> list[str]:
    """Take what is due."""
    paths: list[str] = []
    for path, each in waiting.items():
        if each.due > now or len(paths) >= limit:
            break
        paths.append(path)
    for path in paths:
        del waiting[path]
    return paths


def _topmost(directories: list[str]) -> tuple[str, ...]:
    """Each once, without those below another."""
    kept: list[str] = []
    for path in sorted(directories, key=lambda path: path.split("/")):
        if not kept or not path.startswith(kept[-1] + "/"):
            kept.append(path)
    return tuple(kept)
