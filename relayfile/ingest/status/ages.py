"""How old the oldest change without an outcome is, provider by provider. Pure.

Changes of one workspace mostly end in the order in which they came, so that a few marks (the so-and-so-many-th change
came then) say it without a look at the spool. Where changes end in another order, because windows hold some of them,
the age is off by no more than a window.
"""

from collections import deque
from typing import Final

SPACING_US: Final = 250_000
"""Marks of one provider are at least so far apart."""
MARKS_MAX: Final = 16
"""Marks of one provider; beyond, every second one goes and their spacing doubles: an old age is off by an eighth."""


class PendingAge:
    """The marks of one provider in one workspace."""

    __slots__ = ("_accepted", "_marks", "_settled", "_spacing_us")

    def __init__(self) -> None:
        self._accepted = 0
        self._settled = 0
        self._spacing_us = SPACING_US
        self._marks: deque[tuple[int, int]] = deque()
        """(changes accepted before, receive time), ascending."""

    def accepted(self, count: int, received_us: int) -> None:
        """`count` more changes, the first of them received then."""
        marks = self._marks
        if not marks or received_us - marks[-1][1] >= self._spacing_us:
            if len(marks) >= MARKS_MAX:
                self._marks = marks = deque([mark for number, mark in enumerate(marks) if not number % 2])
                self._spacing_us *= 2
            marks.append((self._accepted, received_us))
        self._accepted += count

    def settled(self, count: int) -> None:
        """`count` of them have their outcome."""
        self._settled += count
        marks = self._marks
        if self._settled >= self._accepted:
            marks.clear()
            self._spacing_us = SPACING_US
        while len(marks) > 1 and marks[1][0] <= self._settled:
            marks.popleft()

    @property
    def oldest_us(self) -> int:
        """Receive time of the oldest that is pending, or a little before it; 0 when nothing is."""
        return self._marks[0][1] if self._marks else 0
