"""Times as providers write them, to Unix microseconds.

Owns the forms that are understood. Refuses to guess: what is not such a time is absent, and an absent time orders by
arrival.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Final

from relayfile.pinned_json import JsonValue

TimeReader = Callable[[JsonValue], int | None]

_SECOND_US: Final = 1_000_000
_US_MAX: Final = 253_402_300_799 * _SECOND_US
_MILLISECONDS_FROM: Final = 100_000_000_000
_SPACED_ZONE = re.compile(r"(\S+ \S+) (UTC|[+-][0-9]{2}:?[0-9]{2})\Z")
_DECIMAL = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?\Z")


def iso_8601(value: JsonValue) -> int | None:
    """`2019-05-15T15:20:18Z`, with an offset or a fraction where there is one; without either it is no time.

    GitHub writes some times of one and the same field as whole Unix seconds, and GitLab a space before the zone
    (`2015-05-17 18:08:09 UTC`): those are understood too.
    """
    if type(value) is int:
        return unix_seconds(value)
    if type(value) is not str or len(value) > 40:
        return None
    if (spaced := _SPACED_ZONE.match(value)) is not None:
        value = spaced[1] + ("Z" if spaced[2] == "UTC" else spaced[2])
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    try:
        seconds = moment.replace(microsecond=0).timestamp()
    except (OverflowError, ValueError):
        return None
    return _in_range(int(seconds) * _SECOND_US + moment.microsecond)


def unix_seconds(value: JsonValue) -> int | None:
    """Seconds since 1970, as a number or as decimal text (`1355517523.000005`)."""
    if type(value) is int:
        return _in_range(value * _SECOND_US)
    if type(value) is float:
        return _in_range(round(value * _SECOND_US)) if 0 <= value < _US_MAX else None
    if type(value) is not str or _DECIMAL.match(value) is None:
        return None
    whole, _, fraction = value.partition(".")
    return _in_range(int(whole) * _SECOND_US + int(fraction[:6].ljust(6, "0")))


def unix_milliseconds(value: JsonValue) -> int | None:
    """Milliseconds since 1970, as a whole number or its text."""
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= 15:
        value = int(value)
    return _in_range(value * 1000) if type(value) is int else None


def iso_8601_or_unix(value: JsonValue) -> int | None:
    """Either, for senders of whom nothing is known. A number is milliseconds where as seconds it were after 5138."""
    if type(value) is int and value >= _MILLISECONDS_FROM:
        return unix_milliseconds(value)
    return iso_8601(value)


FORMATS: Final[dict[str, TimeReader]] = {
    "iso-8601": iso_8601,
    "iso-8601-or-unix": iso_8601_or_unix,
    "unix-seconds": unix_seconds,
    "unix-milliseconds": unix_milliseconds,
}


def _in_range(us: int) -> int | None:
    return us if 0 <= us <= _US_MAX else None
