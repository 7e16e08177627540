"""What providers said to edits, as a mirror hears it: an edit refused for good is a problem until one is taken.

The bytes are in the store and on the disk all the same: only the provider does not have them.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from relayfile.errors import RelayfileError
from relayfile.paths import contains
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.rows import Problem
from relayfile.v1 import event_pb2

WRITEBACK_FAILED: Final = "WRITEBACK_FAILED"
ASKED_MAX: Final = 20
"""Operations of one batch whose failure is looked up; of the others the problem names the operation."""
_ENDS: Final = frozenset({event_pb2.EVENT_TYPE_WRITEBACK_FAILED, event_pb2.EVENT_TYPE_WRITEBACK_SUCCEEDED})


async def learn_refusals(mirror: OpenMirror, events: Iterable[event_pb2.Event]) -> None:
    """List and clear what ``events`` tell; before the cursor moves behind them: told again, it is the same."""
    last = last_ends(events, mirror.remote_paths)
    refused = [each for each in last.values() if each.type == event_pb2.EVENT_TYPE_WRITEBACK_FAILED]
    problems = [await _problem(mirror, each, ask=number < ASKED_MAX) for number, each in enumerate(refused)]
    if problems:
        mirror.journal.problems.refused(problems)
    taken = [path for path, each in last.items() if each.type == event_pb2.EVENT_TYPE_WRITEBACK_SUCCEEDED]
    if taken:
        mirror.journal.problems.accepted(taken)


def last_ends(events: Iterable[event_pb2.Event], roots: Sequence[str]) -> dict[str, event_pb2.Event]:
    """Path -> the last event that says how a write-back of a file below ``roots`` ended."""
    return {
        event.path: event
        for event in events
        if event.type in _ENDS and any(contains(root, event.path) for root in roots)
    }


async def _problem(mirror: OpenMirror, event: event_pb2.Event, *, ask: bool) -> Problem:
    why = ""
    if ask:
        try:
            why = await mirror.feed.failure_of(event.operation_id)
        except RelayfileError:
            why = ""  # the token may not read operations, or the operation is gone: its id says where to look
    workspace = mirror.feed.workspace_id
    message = f"{event.provider or 'The provider'} did not take the edit{': ' + why if why else ''}. "
    message += f"`relayfile ops show {workspace} {event.operation_id}` has all of it."
    when_us = event.event_time.ToMicroseconds() if event.HasField("event_time") else mirror.clock.now_us()
    return Problem(event.path, WRITEBACK_FAILED, message, event.revision, when_us)
