"""Which events a caller asked for: a request's filter compiled into one predicate.

Owns what path globs mean: `*` matches within a segment, `**` as a whole segment matches any number of segments, and
everything else is literal. Matching never backtracks beyond the last wildcard, so that no glob makes a path expensive.
Pure.
"""

from collections.abc import Callable, Sequence

from relayfile.store.plan.rows import EventRow
from relayfile.store.servicers.checks import Checks
from relayfile.v1 import event_pb2, types_pb2

GLOBS_MAX = 64
GLOB_BYTES_MAX = 1_024
VALUES_MAX = 64

Predicate = Callable[[EventRow], bool]


def check_filter(checks: Checks, asked: event_pb2.EventFilter) -> None:
    """Note what of a filter cannot be compiled."""
    for field, values in (("path_globs", asked.path_globs), ("providers", asked.providers)):
        most = GLOBS_MAX if field == "path_globs" else VALUES_MAX
        checks.at_most(len(values), most, f"filter.{field}", "values")
        for index, value in enumerate(values[:most]):
            checks.require(bool(value), f"filter.{field}[{index}]", "is empty")
            checks.require(
                len(value.encode()) <= GLOB_BYTES_MAX,
                f"filter.{field}[{index}]",
                f"is longer than {GLOB_BYTES_MAX} bytes",
            )
    types, origins = event_pb2.EventType.values(), types_pb2.Origin.values()
    for index, kind in enumerate(asked.types[:VALUES_MAX]):
        checks.require(kind in types and kind != 0, f"filter.types[{index}]", f"is {kind}, which is not a type")
    for index, origin in enumerate(asked.origins[:VALUES_MAX]):
        checks.require(
            origin in origins and origin != 0, f"filter.origins[{index}]", f"is {origin}, which is not an origin"
        )


def compile_filter(asked: event_pb2.EventFilter) -> Predicate | None:
    """The predicate, or None when every event passes."""
    tests: list[Predicate] = []
    if asked.types:
        types = frozenset(int(kind) for kind in asked.types)
        tests.append(lambda event: event.type in types)
    if asked.origins:
        origins = frozenset(int(origin) for origin in asked.origins)
        tests.append(lambda event: event.origin in origins)
    if asked.providers:
        providers = frozenset(asked.providers)
        tests.append(lambda event: event.provider in providers)
    if asked.path_globs:
        globs = tuple(compile_glob(glob) for glob in asked.path_globs)
        tests.append(lambda event: any(matches(event.path) for matches in globs))
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda event: all(test(event) for test in tests)


def chosen(events: Sequence[EventRow], passes: Predicate | None) -> Sequence[EventRow]:
    """Those that pass."""
    return events if passes is None else [event for event in events if passes(event)]


def compile_glob(glob: str) -> Callable[[str], bool]:
    """Whether a path matches; a missing leading slash is added."""
    pattern = glob if glob.startswith("/") else "/" + glob
    if "*" not in pattern:
        return lambda path: path == pattern
    if pattern.endswith("/**") and "*" not in pattern[:-3]:
        directory, below = pattern[:-3], pattern[:-2]
        return lambda path: path.startswith(below) or path == directory
    parts = pattern[1:].split("/")
    return lambda path: _matches(path[1:].split("/"), parts, _segment_matches, "**")


def _segment_matches(segment: str, pattern: str) -> bool:
    if "*" not in pattern:
        return segment == pattern
    return _matches(segment, pattern, str.__eq__, "*")


def _matches(items: Sequence[str], pattern: Sequence[str], same: Callable[[str, str], bool], any_number: str) -> bool:
    """Greedy matching that goes back only to the last wildcard: at most len(items) * len(pattern) steps."""
    at = expected = 0
    star, resumed = -1, 0
    while at < len(items):
        if expected < len(pattern) and pattern[expected] == any_number:
            star, resumed = expected, at
            expected += 1
        elif expected < len(pattern) and same(items[at], pattern[expected]):
            at += 1
            expected += 1
        elif star >= 0:
            resumed += 1
            at, expected = resumed, star + 1
        else:
            return False
    return all(part == any_number for part in pattern[expected:])
