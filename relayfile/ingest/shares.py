"""Who may have how much of a bounded store (D14): max-min fair shares over workspaces, and inside one over providers.

While less than half is taken, everybody takes what there is. Beyond, half of the whole is shared out: who asks for
little gets all of it, the others get equally much of the rest. A request inside its workspace's share is never refused
for others' sake; of a workspace past its share only the providers that are past their equal part of it are refused.
The other half is what lets quiet workspaces, and quiet providers of noisy ones, go on while the noisy ones wait.

Pure, and cheap: to charge is a few additions, and below half nothing else happens. Beyond half a decision is a binary
search in the sorted amounts of all workspaces, which are sorted anew only when enough has moved to matter.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final, TypeAlias

Account: TypeAlias = tuple[str, str]
"""Workspace and provider."""

STALE_PARTS: Final = 1024
"""The sorted amounts are good until so small a part of the whole has moved; shares are exact up to it."""
PROVIDERS_WEIGHED_MAX: Final = 256
"""Of a workspace with more providers each may have an even part of its share, whatever the others leave."""


class _Usage:
    """What one workspace has."""

    __slots__ = ("providers", "size_bytes")

    def __init__(self) -> None:
        self.size_bytes = 0
        self.providers: dict[str, int] = {}


class Shares:
    """The bytes of every (workspace, provider), and who is past its share."""

    def __init__(self, bytes_max: int, *, stale_bytes: int | None = None) -> None:
        """`stale_bytes`: how much may move before shares are worked out anew; a 1,024th of the whole by default."""
        self.size_bytes = 0
        self._shared_bytes = bytes_max // 2
        self._usages: dict[str, _Usage] = {}
        self._levels = _Levels(self._shared_bytes, ())
        self._moved_bytes = 0
        self._stale_bytes = bytes_max // STALE_PARTS if stale_bytes is None else stale_bytes

    def __iter__(self) -> Iterator[tuple[Account, int]]:
        """Every account that has anything."""
        for workspace_id, usage in self._usages.items():
            for provider, size_bytes in usage.providers.items():
                yield (workspace_id, provider), size_bytes

    def add(self, workspace_id: str, provider: str, size_bytes: int) -> None:
        """An account has more."""
        usage = self._usages.get(workspace_id)
        if usage is None:
            usage = self._usages[workspace_id] = _Usage()
        providers = usage.providers
        providers[provider] = providers.get(provider, 0) + size_bytes
        usage.size_bytes += size_bytes
        self.size_bytes += size_bytes
        self._moved_bytes += size_bytes

    def give_back(self, workspace_id: str, provider: str, size_bytes: int) -> None:
        """An account has less; what has nothing is forgotten."""
        usage = self._usages[workspace_id]
        left = usage.providers[provider] - size_bytes
        assert left >= 0, f"{provider} of {workspace_id} gives back more than it has"
        usage.size_bytes -= size_bytes
        self.size_bytes -= size_bytes
        self._moved_bytes += size_bytes
        if left:
            usage.providers[provider] = left
        else:
            del usage.providers[provider]
            if not usage.providers:
                del self._usages[workspace_id]

    def excess(self, workspace_id: str, provider: str, size_bytes: int, taken_bytes: int = 0) -> int:
        """By how many bytes the account would be past its share with so many more; 0: it may have them.

        Until more than half is taken it may have anything, even what is larger than any share. `taken_bytes` is what
        everything takes up in truth, where that is more than its bytes: shares are smaller in proportion then.
        """
        shared = self._shared_bytes
        if self.size_bytes <= shared and taken_bytes <= shared:
            return 0
        if taken_bytes > self.size_bytes:
            shared = shared * self.size_bytes // taken_bytes
        levels = self._levels
        if self._moved_bytes > self._stale_bytes or abs(shared - levels.capacity) > self._stale_bytes or not levels:
            self._levels = _Levels(shared, [usage.size_bytes for usage in self._usages.values()])
            self._moved_bytes = 0
        usage = self._usages.get(workspace_id)
        has_bytes = 0 if usage is None else usage.size_bytes
        past = self._levels.excess(has_bytes, size_bytes)
        if past <= 0 or usage is None:
            return max(0, past)
        share = self._levels.share(has_bytes)
        return max(0, _excess_inside(usage.providers, provider, size_bytes, share))


def _excess_inside(providers: Mapping[str, int], provider: str, size_bytes: int, share: int) -> int:
    """As `Shares.excess`, of a provider in its workspace's share."""
    wanted = providers.get(provider, 0) + size_bytes
    others = len(providers) - (provider in providers)
    if others >= PROVIDERS_WEIGHED_MAX:
        return wanted - share // (others + 1)
    taken = sum([min(has, wanted) for name, has in providers.items() if name != provider])
    return taken + wanted - share


class _Levels:
    """What everybody has, in ascending order, to be served from a capacity that may be too small."""

    __slots__ = ("_amounts", "_level", "_sums", "capacity")

    def __init__(self, capacity: int, amounts: Iterable[int]) -> None:
        self.capacity = capacity
        self._amounts = sorted(amounts)
        self._sums = [0, *accumulate(self._amounts)]
        self._level = self._greatest(lambda level: self._taken(level) <= capacity)
        """The share of all who have as much or more."""

    def __bool__(self) -> bool:
        return bool(self._amounts)

    def excess(self, has: int, more: int) -> int:
        """By how much one who has `has` would be past its share with `more`; 0 or less: inside.

        Its share is the greatest level up to which everybody can be served, itself included.
        """
        wanted = has + more
        return self._taken(wanted) - has + wanted - self.capacity

    def share(self, has: int) -> int:
        """The share of one who has `has` and wants more than there is."""
        if has >= self._level:
            return self._level
        return self._greatest(lambda level: self._taken(level) - min(has, level) + level <= self.capacity)

    def _taken(self, level: int) -> int:
        """What all get when nobody gets more than `level`."""
        below = bisect_right(self._amounts, level)
        return self._sums[below] + level * (len(self._amounts) - below)

    def _greatest(self, fits: Callable[[int], bool]) -> int:
        low, high = 0, self.capacity
        while low < high:
            middle = (low + high + 1) // 2
            if fits(middle):
                low = middle
            else:
                high = middle - 1
        return low
