"""Ids that sort by their time of making: 26 characters of Crockford's base 32 (the form of a ULID).

48 bits of milliseconds, then 80 random bits. Ids of one source strictly increase, also inside a millisecond and when
the wall clock steps back; ids of different processes differ by chance. Not a secret and not a security token.
"""

import secrets
from collections.abc import Callable

from relayfile.clock import Clock

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_HEAD_SHIFTS = tuple(range(120, 19, -10))
_TAIL_BITS = 20
_RANDOM_BITS = 80
_RANDOM_MASK = (1 << _RANDOM_BITS) - 1

ID_LENGTH = 26


class IdSource:
    """Makes ids; one for each process is enough. Not thread-safe."""

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._clock = clock
        self._random_bytes = random_bytes
        self._last = 0
        # Ids of one millisecond count up: all but their last characters are the same.
        self._head_value = -1
        self._head = ""

    def new_id(self) -> str:
        """An id greater than every earlier one of this source."""
        milliseconds = self._clock.now_us() // 1000
        last = self._last
        if milliseconds > last >> _RANDOM_BITS:
            # The top random bit stays free, so that counting up within a millisecond cannot overflow into the time.
            value = milliseconds << _RANDOM_BITS | int.from_bytes(self._random_bytes(10), "big") & (_RANDOM_MASK >> 1)
        else:
            value = last + 1
        self._last = value
        if value >> _TAIL_BITS != self._head_value:
            self._head_value = value >> _TAIL_BITS
            self._head = "".join([_PAIRS[value >> shift & 1023] for shift in _HEAD_SHIFTS])
        return self._head + _PAIRS[value >> 10 & 1023] + _PAIRS[value & 1023]
